// Testbench of logits_top: random and ascending logits, ties, NaN and infinities, against a sort.
#include "kernels/modules/logits.h"
#include "kernels/testbench/references.h"

using namespace flexllm::kernels;

extern "C" void logits_top(uint32_t rows, uint32_t vocab, Stream<RowInfo>& list,
                           Stream<Word>& first, Stream<Word>& second, Stream<Word>& records,
                           Stream<Word>& largest);

static void compare_row(const Floats& logits, uint32_t target, const Word& record,
                        Stream<Word>& largest, Differences& differences) {
  const auto vocab = static_cast<uint32_t>(logits.size());
  const std::vector<uint32_t> ids = sorted_ids(logits);
  for (uint32_t w = 0; w < kLargestWords; ++w) {
    Word expected = zero_word();
    for (uint32_t lane = 0; lane < kFieldsPerWord; ++lane) {
      const uint32_t i = (w * kFieldsPerWord + lane) % kTopLogits;
      const bool there = i < ids.size();
      const bool is_id = w >= kLargestWords / 2;
      set_lane(expected, lane,
               is_id ? (there ? ids[i] : kNoLogit) : bits_of(there ? logits[ids[i]] : -kInfinity));
    }
    differences.compare_words("largest", w, expected, largest.read());
  }
  const float max = logits[ids[0]] + 0.0f;
  const float sum = vector_sum(vocab, [&](uint32_t i) { return exp_nonpositive(logits[i] - max); });
  const float log_sum_exp = max + log_from_one(sum);
  Word expected = zero_word();
  set_lane(expected, result_field::argmax, ids[0]);
  set_float(expected, result_field::max, max);
  set_float(expected, result_field::log_sum_exp, log_sum_exp);
  set_float(expected, result_field::target_logprob, logits[target] - log_sum_exp);
  differences.compare_words("record", vocab, expected, record);
}

int main() {
  std::mt19937 random(1);
  Differences differences;
  for (const uint32_t vocab : {1u, 15u, 16u, 17u, 63u, 64u, 65u, 300u, 512u}) {
    std::vector<Floats> rows(4, random_row(random, vocab));
    for (float& l : rows[1]) l = static_cast<float>(static_cast<int>(l));  // many ties
    for (uint32_t i = 0; i < vocab; ++i) rows[2][i] = static_cast<float>(i) / 8.0f;
    for (uint32_t i = 1; i < vocab; i += 2) {
      rows[3][i] = i % 4 == 1 ? -kInfinity : kInfinity - kInfinity;
    }
    Queue<RowInfo> list("list");
    Queue<Word> first("first");
    Queue<Word> second("second");
    Queue<Word> records("records");
    Queue<Word> largest("largest");
    for (const Floats& row : rows) {
      RowInfo info = {};
      info.flags = row_flag::target_logprob;
      info.target = 2 * (vocab / 4);
      list.write(info);
      send_row(row, first);
      send_row(row, second);
    }
    logits_top(4, vocab, list, first, second, records, largest);
    for (const Floats& row : rows) {
      compare_row(row, 2 * (vocab / 4), records.read(), largest, differences);
    }
    differences.expect_empty("first", first.empty());
    differences.expect_empty("second", second.empty());
    differences.expect_empty("records", records.empty());
    differences.expect_empty("largest", largest.empty());
  }
  return differences.status();
}
