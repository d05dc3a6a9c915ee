// Testbench of packed_products_top: sums of extremes and of random factors against plain products.
#include "kernels/modules/packed_products.h"
#include "kernels/testbench/testbench.h"

using namespace flexllm::kernels;

extern "C" void packed_products_top(uint32_t sums, Stream<Word>& in, Stream<Word>& out);

int main() {
  std::mt19937 random(1);
  Differences differences;
  Queue<Word> in("in");
  Queue<Word> out("out");
  const uint32_t sums = 2000;
  std::vector<Word> expected;
  for (uint32_t sum = 0; sum < sums; ++sum) {
    Word result = zero_word();
    for (uint32_t term = 0; term < kTwoCascade; ++term) {
      // In the first 128 sums each factor is at one of its ends throughout.
      const auto number = [&](uint32_t bit, int32_t least, int32_t most) {
        if (sum < 128) return (sum >> bit) & 1u ? most : least;
        return least + static_cast<int32_t>(random() % static_cast<uint32_t>(most - least + 1));
      };
      int32_t factor[7];
      Word word = zero_word();
      for (uint32_t i = 0; i < 7; ++i) {
        factor[i] = i < 4 ? number(i, 0, 15) : number(i, -128, 127);
        set_lane(word, i, static_cast<uint32_t>(factor[i]));
      }
      in.write(word);
      const auto add = [&](uint32_t lane, int32_t a, int32_t b) {
        set_lane(result, lane, get_lane(result, lane) + static_cast<uint32_t>(a * b));
      };
      for (uint32_t field = 0; field < 4; ++field) {
        add(field, factor[field / 2], factor[2 + field % 2]);
      }
      add(4, factor[4], factor[6]);
      add(5, factor[5], factor[6]);
    }
    expected.push_back(result);
  }
  packed_products_top(sums, in, out);
  for (uint32_t sum = 0; sum < sums; ++sum) {
    differences.compare_words("sum", sum, expected[sum], out.read());
  }
  differences.expect_empty("out", out.empty());
  return differences.status();
}
