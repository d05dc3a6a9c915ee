// Testbench of quantize_spans_top: scales per tensor, token and span against plain loops.
#include "kernels/testbench/plain_quantizers.h"

using namespace flexllm::kernels;

extern "C" void quantize_spans_top(ScaleScope scope, Stream<Word>& in,
                                   Stream<AsymmetricScale>& scales, Stream<Word>& out);

static void run(const ScaleScope& scope, std::mt19937& random, Differences& differences) {
  Queue<Word> in("in");
  Queue<AsymmetricScale> scales("scales");
  Queue<Word> out("out");
  const std::vector<Floats> rows = rows_to_quantize(random, scope.rows, scope.size);
  for (const Floats& row : rows) send_row(row, in);
  quantize_spans_top(scope, in, scales, out);
  std::vector<PlainScheme<8, true>> expected;
  for (const Floats& span : spans_of(scope, rows)) {
    expected.emplace_back(span);
    compare_scale(expected.back(), scales.read(), scope.size, differences);
  }
  for (uint32_t row = 0; row < scope.rows; ++row) {
    const auto scale_of = [&](uint32_t i) { return expected[span_number(scope, row, i)]; };
    compare_numbers(rows[row], scale_of, out, differences);
  }
  differences.expect_empty("scales", scales.empty());
  differences.expect_empty("out", out.empty());
}

int main() {
  std::mt19937 random(1);
  Differences differences;
  for (const uint32_t size : {4u, 60u, 64u, 172u, 512u}) {
    run(ScaleScope::per_tensor(3, size), random, differences);
    run(ScaleScope::per_token(3, size), random, differences);
    run(ScaleScope::per_span(3, size, 32), random, differences);
    run(ScaleScope::per_span(1, size, 80), random, differences);
  }
  return differences.status();
}
