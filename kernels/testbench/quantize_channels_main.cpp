// Testbench of quantize_channels_top: a scale a column, against plain loops.
#include "kernels/testbench/plain_quantizers.h"

using namespace flexllm::kernels;

extern "C" void quantize_channels_top(uint32_t rows, uint32_t size, Stream<Word>& in,
                                      Stream<AsymmetricScale>& scales, Stream<Word>& out);

int main() {
  std::mt19937 random(1);
  Differences differences;
  for (const uint32_t size : {52u, 64u, 172u, 512u}) {
    for (const uint32_t rows : {1u, 5u, 8u}) {
      Queue<Word> in("in");
      Queue<AsymmetricScale> scales("scales");
      Queue<Word> out("out");
      const std::vector<Floats> sent = rows_to_quantize(random, rows, size);
      for (const Floats& row : sent) send_row(row, in);
      quantize_channels_top(rows, size, in, scales, out);
      std::vector<PlainScheme<8, true>> expected;
      for (const Floats& channel : channels_of(sent)) {
        expected.emplace_back(channel);
        compare_scale(expected.back(), scales.read(), size, differences);
      }
      for (const Floats& row : sent) {
        compare_numbers(
            row, [&](uint32_t i) { return expected[i]; }, out, differences);
      }
      differences.expect_empty("scales", scales.empty());
      differences.expect_empty("out", out.empty());
    }
  }
  return differences.status();
}
