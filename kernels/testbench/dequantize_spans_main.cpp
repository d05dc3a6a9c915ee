// Testbench of dequantize_spans_top: the numbers of random rows back to floats, against plain
// loops.
#include "kernels/testbench/plain_quantizers.h"

using namespace flexllm::kernels;

extern "C" void dequantize_spans_top(ScaleScope scope, Stream<AsymmetricScale>& scales,
                                     Stream<Word>& in, Stream<Word>& out);

static void run(const ScaleScope& scope, std::mt19937& random, Differences& differences) {
  Queue<AsymmetricScale> scales("scales");
  Queue<Word> in("in");
  Queue<Word> out("out");
  const std::vector<Floats> rows = rows_to_quantize(random, scope.rows, scope.size);
  std::vector<PlainScheme<8, true>> given;
  for (const Floats& span : spans_of(scope, rows)) {
    given.emplace_back(span);
    scales.write(module_scale(given.back()));
  }
  std::vector<Floats> expected;
  for (uint32_t row = 0; row < scope.rows; ++row) {
    const auto scale_of = [&](uint32_t i) { return given[span_number(scope, row, i)]; };
    expected.push_back(send_numbers(rows[row], scale_of, in));
  }
  dequantize_spans_top(scope, scales, in, out);
  for (const Floats& row : expected) differences.compare_rows(row, receive_row(row.size(), out));
  differences.expect_empty("scales", scales.empty());
  differences.expect_empty("out", out.empty());
}

int main() {
  std::mt19937 random(3);
  Differences differences;
  for (const uint32_t size : {4u, 60u, 64u, 172u, 512u}) {
    run(ScaleScope::per_tensor(3, size), random, differences);
    run(ScaleScope::per_token(3, size), random, differences);
    run(ScaleScope::per_span(3, size, 32), random, differences);
  }
  return differences.status();
}
