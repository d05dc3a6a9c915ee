// Testbench of quantize_top: rows of many sizes, 4 and 8 bits, against plain loops.
#include "kernels/testbench/plain_quantizers.h"

using namespace flexllm::kernels;

extern "C" void quantize_top(uint32_t rows, uint32_t size, ActivationGrid grid, Stream<Word>& in,
                             Stream<AsymmetricScale>& scales, Stream<Word>& out);

template <uint32_t Bits>
static void run(std::mt19937& random, uint32_t clip, bool symmetric, Differences& differences) {
  typedef PlainScheme<Bits, false> Plain;
  const uint32_t rows = 3;
  for (const uint32_t size : {4u, 12u, 16u, 20u, 64u, 68u, 172u, 576u, 2048u}) {
    Queue<Word> in("in");
    Queue<AsymmetricScale> scales("scales");
    Queue<Word> out("out");
    std::vector<Floats> sent;
    for (uint32_t row = 0; row < rows; ++row) {
      sent.push_back(row == 1 ? Floats(size, 0.5f) : random_row(random, size));
      send_row(sent.back(), in);
    }
    quantize_top(rows, size, ActivationGrid{(1u << Bits) - 1, clip, symmetric}, in, scales, out);
    for (const Floats& row : sent) {
      const Plain scale(row, clip, symmetric);
      compare_scale(scale, scales.read(), size, differences);
      compare_numbers(
          row, [&](uint32_t) { return scale; }, out, differences);
    }
    differences.expect_empty("scales", scales.empty());
    differences.expect_empty("out", out.empty());
  }
}

int main() {
  std::mt19937 random(3);
  Differences differences;
  for (const uint32_t clip : {0u, 38u, 255u}) {
    run<4>(random, clip, clip != 0, differences);
    run<4>(random, clip, false, differences);
    run<8>(random, clip, clip == 0, differences);
  }
  return differences.status();
}
