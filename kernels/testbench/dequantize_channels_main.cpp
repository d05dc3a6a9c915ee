// Testbench of dequantize_channels_top: the numbers of random rows back to floats.
#include "kernels/testbench/plain_quantizers.h"

using namespace flexllm::kernels;

extern "C" void dequantize_channels_top(uint32_t rows, uint32_t size,
                                        Stream<AsymmetricScale>& scales, Stream<Word>& in,
                                        Stream<Word>& out);

int main() {
  std::mt19937 random(2);
  Differences differences;
  for (const uint32_t size : {4u, 52u, 64u, 172u, 512u}) {
    for (const uint32_t rows : {1u, 5u}) {
      Queue<AsymmetricScale> scales("scales");
      Queue<Word> in("in");
      Queue<Word> out("out");
      const std::vector<Floats> sent = rows_to_quantize(random, rows, size);
      std::vector<PlainScheme<4, false>> given;
      for (const Floats& channel : channels_of(sent)) {
        given.emplace_back(channel);
        scales.write(module_scale(given.back()));
      }
      std::vector<Floats> expected;
      for (const Floats& row : sent) {
        expected.push_back(send_numbers(
            row, [&](uint32_t i) { return given[i]; }, in));
      }
      dequantize_channels_top(rows, size, scales, in, out);
      for (const Floats& row : expected) differences.compare_rows(row, receive_row(size, out));
      differences.expect_empty("scales", scales.empty());
      differences.expect_empty("out", out.empty());
    }
  }
  return differences.status();
}
