// Testbench of quantize_top: rows of many sizes, 4 and 8 bits, against plain loops.
#include "kernels/testbench/testbench.h"

using namespace flexllm::kernels;

extern "C" void quantize_top(uint32_t rows, uint32_t size, uint32_t levels, Stream<Word>& in,
                             Stream<AsymmetricScale>& scales, Stream<Word>& out);

static AsymmetricScale reference_scale(const Floats& row, uint32_t levels) {
  float lowest = row[0];
  float highest = row[0];
  for (const float x : row) {
    lowest = x < lowest ? x : lowest;
    highest = x > highest ? x : highest;
  }
  const float step = (highest - lowest) / static_cast<float>(levels);
  AsymmetricScale scale;
  scale.zero = lowest + 0.0f;
  scale.scale = step > 0.0f ? step : 1.0f;
  scale.inverse = 1.0f / scale.scale;
  return scale;
}

int main() {
  std::mt19937 random(3);
  Differences differences;
  const uint32_t rows = 3;
  for (const uint32_t levels : {15u, 255u}) {
    for (const uint32_t size : {4u, 12u, 16u, 20u, 64u, 68u, 172u, 576u, 2048u}) {
      Queue<Word> in("in");
      Queue<AsymmetricScale> scales("scales");
      Queue<Word> out("out");
      std::vector<Floats> sent;
      for (uint32_t row = 0; row < rows; ++row) {
        sent.push_back(row == 1 ? Floats(size, 0.5f) : random_row(random, size));
        send_row(sent.back(), in);
      }
      quantize_top(rows, size, levels, in, scales, out);
      for (const Floats& row : sent) {
        const AsymmetricScale expected = reference_scale(row, levels);
        const AsymmetricScale scale = scales.read();
        differences.compare_bits("zero", size, 0, bits_of(expected.zero), bits_of(scale.zero));
        differences.compare_bits("scale", size, 0, bits_of(expected.scale), bits_of(scale.scale));
        differences.compare_bits("inverse", size, 0, bits_of(expected.inverse),
                                 bits_of(scale.inverse));
        for (uint32_t begin = 0; begin < size; begin += kBytesPerWord) {
          const Word word = out.read();
          for (uint32_t byte = 0; byte < kBytesPerWord; ++byte) {
            const uint32_t i = begin + byte;
            const uint32_t q = i < size
                                   ? quantize_unsigned((row[i] - expected.zero) * expected.inverse,
                                                       static_cast<float>(levels))
                                   : 0;
            differences.compare_bits("byte", size, i, q, get_byte(word, byte));
          }
        }
      }
      differences.expect_empty("scales", scales.empty());
      differences.expect_empty("out", out.empty());
    }
  }
  return differences.status();
}
