// Row results from the logits in scratch (docs/numerics.md, section 7).
#pragma once

#include "kernels/modules/norm.h"
#include "kernels/modules/types.h"

namespace flexllm {
namespace kernels {

// The 64 largest of a stream of logits with ascending ids: an insertion network. Each entry
// compares the newcomer with its own logit and its upper neighbour's and keeps, takes or shifts;
// equal logits stay in front of a newcomer, NaN and -infinity never enter.
struct TopNetwork {
  float logit[kTopLogits];
  uint32_t id[kTopLogits];

  void clear() {
    HLS_UNROLL_AHEAD
    for (uint32_t i = 0; i < kTopLogits; ++i) {
      HLS_UNROLL
      logit[i] = -kInfinity;
      id[i] = 0xffffffffu;
    }
  }

  void offer(float candidate, uint32_t candidate_id) {
    if (!(candidate > logit[kTopLogits - 1])) return;
    HLS_UNROLL_AHEAD
    for (uint32_t i = kTopLogits - 1; i > 0; --i) {
      HLS_UNROLL
      const bool above = candidate > logit[i - 1];
      const bool here = candidate > logit[i];
      id[i] = above ? id[i - 1] : here ? candidate_id : id[i];
      logit[i] = above ? logit[i - 1] : here ? candidate : logit[i];
    }
    if (candidate > logit[0]) {
      logit[0] = candidate;
      id[0] = candidate_id;
    }
  }
};

// What the first pass over a row of logits finds.
struct RowExtrema {
  RowInfo row;
  uint32_t argmax;
  float max;
  float target_logit;
};

// Sends each row's logits twice: to the network and to the sum.
//   K     shape
// Cycles: 2 * ceil(vocab / 16) per row.
template <typename K>
void read_logits(const Word* scratch, uint32_t rows, uint32_t vocab, uint32_t logits,
                 Stream<RowInfo>& list, Stream<Word>& first, Stream<Word>& second) {
  for (uint32_t i = 0; i < rows; ++i) {
    HLS_TRIPS(1, K::rows)
    const uint32_t at = logits + list.read().logits_slot * logits_words(vocab);
    for (uint32_t pass = 0; pass < 2; ++pass) {
      for (uint32_t w = 0; w < float_words(vocab); ++w) {
        HLS_TRIPS(1, float_words(K::vocab))
        HLS_PIPELINE(1)
        const Word word = scratch[at + w];
        if (pass == 0) {
          first.write(word);
        } else {
          second.write(word);
        }
      }
    }
  }
}

// Maximum, arg-max, logit of the target, and the largest 64 as eight words: logits, then ids.
//   K     shape
// Cycles: per row vocab (the network takes one logit a cycle) + 8.
template <typename K>
void find_largest(uint32_t rows, uint32_t vocab, Stream<RowInfo>& list, Stream<Word>& logits,
                  Stream<RowExtrema>& extrema, Stream<Word>& largest) {
  for (uint32_t i = 0; i < rows; ++i) {
    HLS_TRIPS(1, K::rows)
    TopNetwork top;
    top.clear();
    RowExtrema found;
    found.row = list.read();
    found.target_logit = 0.0f;
    for (uint32_t w = 0; w < float_words(vocab); ++w) {
      HLS_TRIPS(1, float_words(K::vocab))
      const Word word = logits.read();
      for (uint32_t lane = 0; lane < kFloatsPerWord; ++lane) {
        HLS_PIPELINE(1)
        const uint32_t id = w * kFloatsPerWord + lane;
        const float logit = get_float(word, lane);
        if (id < vocab) top.offer(logit, id);
        if (id == found.row.target) found.target_logit = logit;
      }
    }
    found.argmax = top.id[0] == 0xffffffffu ? 0 : top.id[0];
    found.max = top.logit[0] + 0.0f;
    extrema.write(found);
    for (uint32_t w = 0; w < 2 * kTopLogits / kFieldsPerWord; ++w) {
      HLS_PIPELINE(1)
      Word word = zero_word();
      HLS_UNROLL_AHEAD
      for (uint32_t lane = 0; lane < kFieldsPerWord; ++lane) {
        HLS_UNROLL
        const uint32_t at = w * kFieldsPerWord + lane;
        set_lane(word, lane, at < kTopLogits ? bits_of(top.logit[at]) : top.id[at - kTopLogits]);
      }
      largest.write(word);
    }
  }
}

// log-sum-exp and target log-probability: completes the record of each row.
//   K     shape
// Cycles: per row ceil(vocab / 16) * 4 (a partial sum's adder comes round after 4 words).
template <typename K>
void sum_exponentials(uint32_t rows, uint32_t vocab, Stream<RowExtrema>& extrema,
                      Stream<Word>& logits, Stream<Word>& records) {
  for (uint32_t i = 0; i < rows; ++i) {
    HLS_TRIPS(1, K::rows)
    const RowExtrema found = extrema.read();
    float partial[kPartialSums] = {};
    HLS_PARTITION(partial, 1)
    for (uint32_t w = 0; w < float_words(vocab); ++w) {
      HLS_TRIPS(1, float_words(K::vocab))
      HLS_PIPELINE(2)
      const Word word = logits.read();
      HLS_UNROLL_AHEAD
      for (uint32_t lane = 0; lane < kFloatsPerWord; ++lane) {
        HLS_UNROLL
        const uint32_t id = w * kFloatsPerWord + lane;
        const float e = exp_nonpositive(get_float(word, lane) - found.max);
        const uint32_t slot = id % static_cast<uint32_t>(kPartialSums);
        if (id < vocab) partial[slot] = partial[slot] + e;
      }
    }
    const float log_sum_exp = found.max + log_from_one(fold_partial_sums(partial));
    const bool wants_target = (found.row.flags & row_flag::target_logprob) != 0;
    Word record = zero_word();
    set_lane(record, result_field::argmax, found.argmax);
    set_float(record, result_field::max, found.max);
    set_float(record, result_field::log_sum_exp, log_sum_exp);
    set_float(record, result_field::target_logprob,
              wants_target ? found.target_logit - log_sum_exp : 0.0f);
    records.write(record);
  }
}

// Writes the records, with the largest logits where they were asked for.
//   K     shape
// Cycles: 9 per row.
template <typename K>
void write_row_results(Word* result, uint32_t rows, Stream<RowInfo>& list, Stream<Word>& records,
                       Stream<Word>& largest) {
  for (uint32_t i = 0; i < rows; ++i) {
    HLS_TRIPS(1, K::rows)
    const RowInfo row = list.read();
    result[row.row_result] = records.read();
    for (uint32_t w = 0; w < 2 * kTopLogits / kFieldsPerWord; ++w) {
      HLS_PIPELINE(1)
      const Word word = largest.read();
      if ((row.flags & row_flag::row_result) != 0) result[row.row_result + 1 + w] = word;
    }
  }
}

}  // namespace kernels
}  // namespace flexllm
