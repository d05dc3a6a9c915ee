// Testbenches of the modules behind lm_head: the network of the 64 largest, and whole row results.
#include <algorithm>
#include <numeric>

#include "kernels/tests/module_bench.h"
#include "kernels/tests/module_time.h"
#include "kernels/tops/outputs.h"

namespace flexllm::kernels {
namespace {

struct Shape {
  static constexpr uint32_t rows = 4;
  static constexpr uint32_t vocab = 400;
};

const float kNan = std::numeric_limits<float>::quiet_NaN();

void run_row(const Floats& logits, uint32_t target) {
  const auto vocab = static_cast<uint32_t>(logits.size());
  RowInfo row = {};
  row.flags = row_flag::row_result | row_flag::target_logprob;
  row.target = target;
  row.row_result = 2;
  row.logits_slot = 1;
  std::vector<Word> scratch(3 + 2 * logits_words(vocab), zero_word());
  for (uint32_t i = 0; i < vocab; ++i) {
    set_float(scratch[3 + logits_words(vocab) + i / kFloatsPerWord], i % kFloatsPerWord, logits[i]);
  }
  Fifo<RowInfo, 1> to_read("to_read");
  Fifo<RowInfo, 1> to_find("to_find");
  Fifo<RowInfo, 1> to_write("to_write");
  Fifo<Word, 1> first("first");
  Fifo<Word, 1> second("second");
  Fifo<RowExtrema, 1> extrema("extrema");
  Fifo<RowExtrema, 1> summed("summed");
  Fifo<Word, 1> partials("partials");
  Fifo<Word, 1> largest("largest");
  Fifo<Word, 1> records("records");
  to_read.write(row);
  to_find.write(row);
  to_write.write(row);
  read_logits<Shape>(scratch.data(), 1, vocab, 3, to_read, first, second);
  find_largest<Shape>(1, vocab, to_find, first, extrema, largest);
  sum_exponentials<Shape, 4>(1, vocab, extrema, second, summed, partials);
  complete_records<Shape>(1, vocab, summed, partials, records);
  std::vector<Word> result(2 + kRowResultWords, zero_word());
  write_row_results<Shape>(result.data(), 1, to_write, records, largest);

  const std::vector<uint32_t> ids = sorted_ids(logits);
  const Word& record = result[2];
  for (uint32_t i = 0; i < kTopLogits; ++i) {
    const Word& values = result[3 + i / kFieldsPerWord];
    const Word& names = result[3 + (kTopLogits + i) / kFieldsPerWord];
    const bool there = i < ids.size();
    ASSERT_EQ(get_lane(names, i % kFieldsPerWord), there ? ids[i] : 0xffffffffu) << "entry " << i;
    ASSERT_EQ(get_lane(values, i % kFieldsPerWord), bits_of(there ? logits[ids[i]] : -kInfinity));
  }
  EXPECT_EQ(get_lane(record, result_field::argmax), ids.empty() ? 0 : ids[0]);
  if (ids.empty()) return;
  const float max = logits[ids[0]] + 0.0f;
  const float sum = vector_sum(vocab, [&](uint32_t i) { return exp_nonpositive(logits[i] - max); });
  const float log_sum_exp = max + log_from_one(sum);
  EXPECT_EQ(get_lane(record, result_field::max), bits_of(max));
  EXPECT_EQ(get_lane(record, result_field::log_sum_exp), bits_of(log_sum_exp));
  const float log_probability = logits[target] - log_sum_exp;
  EXPECT_EQ(get_float(record, result_field::target_logprob), log_probability);
}

TEST(RowResult, EqualsASortForEverySize) {
  std::mt19937 random(1);
  for (const uint32_t vocab : {1u, 2u, 15u, 16u, 17u, 63u, 64u, 65u, 300u, 400u}) {
    SCOPED_TRACE(vocab);
    Floats logits = random_row(random, vocab);
    run_row(logits, vocab - 1);
    for (float& l : logits) l = static_cast<float>(static_cast<int>(l));  // many ties
    run_row(logits, vocab / 2);
    std::iota(logits.begin(), logits.end(), -20.0f);  // each is a new maximum
    run_row(logits, 0);
    run_row(Floats(vocab, -0.0f), vocab - 1);
  }
}

TEST(RowResult, LeavesOutNanAndInfinity) {
  std::mt19937 random(2);
  Floats logits = random_row(random, 100);
  for (uint32_t i = 0; i < 100; i += 2) logits[i] = i % 4 == 0 ? kNan : -kInfinity;
  run_row(logits, 1);
  run_row(Floats(100, -kInfinity), 0);
  run_row(Floats(100, kNan), 0);
}

TEST(RowResult, ZerosOfBothSignsAreATie) {
  Floats logits(70, -1.0f);
  logits[10] = -0.0f;
  logits[20] = 0.0f;
  run_row(logits, 10);
}

#if !FLEXLLM_HLS_TYPES

// Cycles of find_largest on one row.
uint64_t search_cycles(const Floats& logits) {
  const auto vocab = static_cast<uint32_t>(logits.size());
  Fifo<RowInfo, 1> list("list");
  Fifo<Word, 1> words("words");
  Fifo<RowExtrema, 1> extrema("extrema");
  Fifo<Word, 1> largest("largest");
  list.write(RowInfo{});
  send_row(logits, words);
  return timed_cycles([&] {
    HLS_DATAFLOW("bench");
    HLS_TASK(find_largest<Shape>(1, vocab, list, words, extrema, largest));
    HLS_DATAFLOW_END();
  });
}

TEST(LogitTime, OnlyCandidatesCostACycle) {
  constexpr uint32_t kVocab = 32768;
  Floats logits(kVocab);
  std::iota(logits.begin(), logits.end(), 0.0f);
  EXPECT_EQ(search_cycles(logits), kRegionCycles + kVocab / 16 + kVocab + 9);
  std::reverse(logits.begin(), logits.end());
  // The last of the first 64 enters as the fifth word is compared, which therefore is offered too.
  EXPECT_EQ(search_cycles(logits), kRegionCycles + kVocab / 16 + 64 + 16 + 9);
  std::mt19937 random(3);
  std::shuffle(logits.begin(), logits.end(), random);
  const uint64_t candidates = search_cycles(logits) - kRegionCycles - kVocab / 16 - 9;
  EXPECT_GT(candidates, 64u * 6);  // 64 * (1 + ln 512) = 463
  EXPECT_LT(candidates, 64u * 9);
}

// Shape of whole row results.
struct Results {
  static constexpr uint32_t rows = 6;
  static constexpr uint32_t vocab = 16384;
  static constexpr uint32_t logits_parallel = 8;
};

TEST(LogitTime, ARowIsSummedWhileTheNextIsSearched) {
  std::mt19937 random(4);
  std::vector<Word> desc(Results::rows, zero_word());
  std::vector<Word> scratch(Results::rows * logits_words(Results::vocab));
  for (uint32_t row = 0; row < Results::rows; ++row) {
    set_lane(desc[row], row_field::flags, row_flag::needs_logits | row_flag::row_result);
    set_lane(desc[row], row_field::logits_slot, row);
    set_lane(desc[row], row_field::row_result, row * kRowResultWords);
  }
  for (Word& word : scratch) {
    for (uint32_t lane = 0; lane < kFloatsPerWord; ++lane) {
      set_float(word, lane, static_cast<float>(random() % 100000) / 5000.0f);
    }
  }
  std::vector<Word> result(Results::rows * kRowResultWords);
  LaunchInfo launch = {};
  launch.rows = Results::rows;
  launch.logits_rows = Results::rows;
  ModelInfo info = {};
  info.vocab = Results::vocab;
  const uint64_t cycles = timed_cycles(
      [&] { run_row_results<Results>(desc.data(), scratch.data(), result.data(), launch, info); });
  const uint64_t words = Results::vocab / kFloatsPerWord;
  EXPECT_LT(cycles, words * (2 * Results::rows + 1) + 1500);
}

#endif

}  // namespace
}  // namespace flexllm::kernels
