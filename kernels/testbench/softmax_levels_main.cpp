// Testbench of softmax_levels_top: rows of many sizes against the formula, exact sums included.
#include "kernels/testbench/references.h"

using namespace flexllm::kernels;

extern "C" void softmax_levels_top(uint32_t rows, uint32_t size, uint32_t levels, Stream<Word>& in,
                                   Stream<Word>& out, Stream<Accumulator>& sums);

int main() {
  std::mt19937 random(1);
  Differences differences;
  const uint32_t rows = 3;
  for (const uint32_t levels : {255u, 65535u}) {
    for (const uint32_t size : {4u, 12u, 16u, 20u, 64u, 68u, 172u, 1024u}) {
      Queue<Word> in("in");
      Queue<Word> out("out");
      Queue<Accumulator> sums("sums");
      std::vector<Floats> sent;
      for (uint32_t row = 0; row < rows; ++row) {
        sent.push_back(row == 1 ? Floats(size, -3.5f) : random_row(random, size));
        send_row(sent.back(), in);
      }
      softmax_levels_top(rows, size, levels, in, out, sums);
      for (const Floats& row : sent) {
        uint32_t sum = 0;
        Word word = zero_word();
        const Floats e = exponentials(row);
        for (uint32_t i = 0; i < padded(size); ++i) {
          if (i % kFloatsPerWord == 0) word = out.read();
          const float exact = i < size ? e[i] * static_cast<float>(levels) : 0.0f;
          const auto level = static_cast<uint32_t>(round_even(exact));
          differences.compare_bits("level", size, i, level, get_lane(word, i % kFloatsPerWord));
          sum += level;
        }
        differences.compare_bits("sum", size, 0, sum,
                                 static_cast<uint32_t>(static_cast<int64_t>(sums.read())));
      }
      differences.expect_empty("out", out.empty());
      differences.expect_empty("sums", sums.empty());
    }
  }
  return differences.status();
}
