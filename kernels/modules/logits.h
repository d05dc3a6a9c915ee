// Row results from the logits in scratch (docs/numerics.md, section 7).
#pragma once

#include "kernels/hls/latency.h"
#include "kernels/hls/memory.h"
#include "kernels/modules/types.h"
#include "kernels/modules/vector_sum.h"

namespace flexllm {
namespace kernels {

constexpr uint32_t kNoLogit = 0xffffffffu;                           // id of an empty entry
constexpr uint32_t kLargestWords = 2 * kTopLogits / kFieldsPerWord;  // logits, then ids

// A logit as a number that is ordered as the logits are: zeros are equal, NaN is as -infinity.
inline uint32_t order_of(uint32_t bits) {
  constexpr uint32_t kMinusInfinity = 0x007fffffu;
  const uint32_t magnitude = bits & 0x7fffffffu;
  if (magnitude > 0x7f800000u) return kMinusInfinity;
  if (magnitude < 0x00800000u) return 0x80000000u;
  return (bits >> 31) != 0 ? ~bits : bits | 0x80000000u;
}

struct LogitEntry {
  uint32_t order;
  uint32_t bits;
  uint32_t id;
};

// The 64 largest of logits that are offered with ascending ids: an insertion network. Each entry
// compares the newcomer with itself and its upper neighbour and keeps, takes or shifts, in a cycle;
// equal logits stay in front of a newcomer, NaN and -infinity never enter.
struct TopNetwork {
  LogitEntry entry[kTopLogits];

  void clear() {
    HLS_UNROLL_AHEAD
    for (uint32_t i = 0; i < kTopLogits; ++i) {
      HLS_UNROLL
      entry[i] = LogitEntry{order_of(bits_of(-kInfinity)), bits_of(-kInfinity), kNoLogit};
    }
  }

  void offer(const LogitEntry& candidate) {
    HLS_UNROLL_AHEAD
    for (uint32_t i = kTopLogits - 1; i > 0; --i) {
      HLS_UNROLL
      const bool above = candidate.order > entry[i - 1].order;
      const bool here = candidate.order > entry[i].order;
      entry[i] = above ? entry[i - 1] : here ? candidate : entry[i];
    }
    if (candidate.order > entry[0].order) entry[0] = candidate;
  }

  // Word `w` of the entries: logits, then ids.
  Word word(uint32_t w) const {
    Word out = zero_word();
    HLS_UNROLL_AHEAD
    for (uint32_t lane = 0; lane < kFieldsPerWord; ++lane) {
      HLS_UNROLL
      const LogitEntry& e = entry[(w * kFieldsPerWord + lane) % kTopLogits];
      set_lane(out, lane, w < kLargestWords / 2 ? e.bits : e.id);
    }
    return out;
  }
};

// What the first pass over a row of logits finds.
struct RowExtrema {
  RowInfo row;
  uint32_t argmax;
  float max;
  float target_logit;
};

// Sends each row's logits to the network and to the sum, which keeps a row until its maximum is
// known: card memory is read once.
//   K     shape
// Cycles: rows * ceil(vocab / 16).
template <typename K>
void read_logits(const Word* scratch, uint32_t rows, uint32_t vocab, uint32_t logits,
                 Stream<RowInfo>& list, Stream<Word>& first, Stream<Word>& second) {
  const uint32_t words = float_words(vocab);
  uint32_t at = 0;
  uint32_t w = 0;
  for (uint32_t i = 0; i < rows * words; ++i) {
    HLS_TRIPS(1, K::rows * float_words(K::vocab))
    HLS_PIPELINE(1)
    if (w == 0) at = logits + list.read().logits_slot * logits_words(vocab);
    const Word word = read_word(scratch, at + w);
    first.write(word);
    second.write(word);
    if (++w == words) w = 0;
  }
}

// Maximum, arg-max, logit of the target, and the largest 64 as eight words: logits, then ids. A
// word of 16 logits is compared with the present 64th; those above it are offered to the network
// one a cycle, and only then comes the next word.
//   K     shape
// Cycles: per row ceil(vocab / 16) + the logits that were above the 64th when their word came + 9.
// In random order these are about 64 * (1 + ln(vocab / 64)), 551 of 128,256; at worst, in ascending
// order, vocab.
// Memory: 64 entries of 96 bits in registers.
template <typename K>
void find_largest(uint32_t rows, uint32_t vocab, Stream<RowInfo>& list, Stream<Word>& logits,
                  Stream<RowExtrema>& extrema, Stream<Word>& largest) {
  const uint32_t words = float_words(vocab);
  const LogitEntry none = {0, 0, kNoLogit};
  TopNetwork top;
  HLS_PARTITION(top.entry, 1)
  top.clear();
  RowExtrema found = {};
  Word word = zero_word();
  uint32_t word_id = 0;    // of its first logit
  uint32_t waiting = 0;    // lanes of the word that are still to be offered
  LogitEntry next = none;  // chosen, offered in the next cycle
  uint32_t w = 0;
  bool sending = false;
  for (uint32_t done = 0; done < rows;) {
    HLS_TRIPS(1, K::rows * (float_words(K::vocab) + K::vocab + 9))
    HLS_PIPELINE(1)
    HLS_DEPTH(latency::compare)
    if (sending) {
      largest.write(top.word(w));
      ++w;
      if (w == kLargestWords) {
        top.clear();
        sending = false;
        w = 0;
        ++done;
      }
      continue;
    }
    const uint32_t threshold = top.entry[kTopLogits - 1].order;
    top.offer(next);
    next = none;
    if (waiting != 0) {
      bool chosen = false;
      HLS_UNROLL_AHEAD
      for (uint32_t lane = 0; lane < kFloatsPerWord; ++lane) {
        HLS_UNROLL
        if (!chosen && ((waiting >> lane) & 1u) != 0) {
          const uint32_t bits = get_lane(word, lane);
          next = LogitEntry{order_of(bits), bits, word_id + lane};
          chosen = true;
        }
      }
      waiting &= waiting - 1;
    } else if (w < words) {
      word = logits.read();
      word_id = w * kFloatsPerWord;
      if (w == 0) {
        found.row = list.read();
        found.target_logit = 0.0f;
      }
      HLS_UNROLL_AHEAD
      for (uint32_t lane = 0; lane < kFloatsPerWord; ++lane) {
        HLS_UNROLL
        const bool above = order_of(get_lane(word, lane)) > threshold;
        if (word_id + lane < vocab && above) waiting |= 1u << lane;
        if (word_id + lane == found.row.target) found.target_logit = get_float(word, lane);
      }
      ++w;
    } else {
      found.argmax = top.entry[0].id == kNoLogit ? 0 : top.entry[0].id;
      found.max = float_of(top.entry[0].bits) + 0.0f;
      extrema.write(found);
      sending = true;
      w = 0;
    }
  }
}

// Adds up exp(logit - maximum) of each row: sends on what was found of it, and its partial sums.
//   K      shape
//   Lanes  exponentials a cycle: 1, 2, 4 or 8
// Cycles: 16 / Lanes * rows * ceil(vocab / 16). DSP: 45 * Lanes.
template <typename K, uint32_t Lanes>
void sum_exponentials(uint32_t rows, uint32_t vocab, Stream<RowExtrema>& extrema,
                      Stream<Word>& logits, Stream<RowExtrema>& summed, Stream<Word>& partials) {
  static_assert(Lanes > 0 && kFloatsPerWord % Lanes == 0, "a word is whole steps");
  constexpr uint32_t kInterval = kFloatsPerWord / Lanes;
  static_assert(kPartialWords * kInterval >= latency::add, "a sum is ready when it goes on");
  const uint32_t words = float_words(vocab);
  PartialSums sums = {};
  HLS_PARTITION(sums.value, 0)
  RowExtrema found = {};
  uint32_t w = 0;
  for (uint32_t i = 0; i < rows * words; ++i) {
    HLS_TRIPS(1, K::rows * float_words(K::vocab))
    HLS_PIPELINE(kInterval)
    HLS_DEPTH(2 * latency::add + latency::exp)
    if (w == 0) {
      found = extrema.read();
      summed.write(found);
    }
    const Word word = logits.read();
    float e[kFloatsPerWord];
    HLS_PARTITION(e, 1)
    HLS_UNROLL_AHEAD
    for (uint32_t lane = 0; lane < kFloatsPerWord; ++lane) {
      HLS_UNROLL
      e[lane] = exp_nonpositive(get_float(word, lane) - found.max);
    }
    const Word out = sums.add(w, vocab, e);
    if (w + kPartialWords >= words) partials.write(out);
    w = w + 1 == words ? 0 : w + 1;
  }
}

// From the operand to the result of log.
constexpr uint32_t kLogDepth =
    latency::add + latency::divide + 5 * (latency::multiply + latency::add) + latency::multiply;

// log-sum-exp and target log-probability: completes the record of each row.
//   K     shape
// Cycles: 16 per row, far below those of its sum. DSP: 8 to fold, 27 for the logarithm.
template <typename K>
void complete_records(uint32_t rows, uint32_t vocab, Stream<RowExtrema>& summed,
                      Stream<Word>& partials, Stream<Word>& records) {
  const uint32_t words = float_words(vocab);
  for (uint32_t i = 0; i < rows; ++i) {
    HLS_TRIPS(1, K::rows)
    HLS_PIPELINE(16)
    HLS_DEPTH(latency::fold + kLogDepth + 2 * latency::add)
    const RowExtrema found = summed.read();
    const float log_sum_exp = found.max + log_from_one(fold_partial_words(words, partials));
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
  RowInfo row = {};
  uint32_t w = 0;  // of the row: the record, then the largest
  for (uint32_t i = 0; i < rows * (1 + kLargestWords); ++i) {
    HLS_TRIPS(1, K::rows * (1 + kLargestWords))
    HLS_PIPELINE(1)
    if (w == 0) row = list.read();
    const Word word = w == 0 ? records.read() : largest.read();
    const bool wanted = w == 0 || (row.flags & row_flag::row_result) != 0;
    if (wanted) write_word(result, row.row_result + w, word);
    w = w == kLargestWords ? 0 : w + 1;
  }
}

}  // namespace kernels
}  // namespace flexllm
