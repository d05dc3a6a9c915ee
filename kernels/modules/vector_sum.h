// vsum of docs/numerics.md, section 1, over terms that come 16 a word: 64 partial sums, folded.
#pragma once

#include "kernels/hls/latency.h"
#include "kernels/modules/types.h"

namespace flexllm {
namespace kernels {

// Words of 64 partial sums: word w of a vector is added to those of number w mod 4.
constexpr uint32_t kPartialWords = static_cast<uint32_t>(kPartialSums) / kFloatsPerWord;

// The partial sums of the last four words, the oldest first. A word's sums go on four words later,
// so an addition may take as long as four words take.
struct PartialSums {
  float value[kPartialWords][kFloatsPerWord];

  // Adds the terms of word `w`, of which those below `size` count, and returns their sums. Those of
  // the last words of a vector, at most four, are final.
  Word add(uint32_t w, uint32_t size, const float (&terms)[kFloatsPerWord]) {
    Word out = zero_word();
    HLS_UNROLL_AHEAD
    for (uint32_t lane = 0; lane < kFloatsPerWord; ++lane) {
      HLS_UNROLL
      const float before = w < kPartialWords ? 0.0f : value[0][lane];
      const float after = w * kFloatsPerWord + lane < size ? before + terms[lane] : before;
      HLS_UNROLL_AHEAD
      for (uint32_t age = 0; age + 1 < kPartialWords; ++age) {
        HLS_UNROLL
        value[age][lane] = value[age + 1][lane];
      }
      value[kPartialWords - 1][lane] = after;
      set_float(out, lane, after);
    }
    return out;
  }
};

// Reads the final sums of a vector of `words` words, at most four words in the order in which they
// became final, and adds them up in the order of the contract: 32, 16, ... 1 apart.
inline float fold_partial_words(uint32_t words, Stream<Word>& partials) {
  const uint32_t first = words < kPartialWords ? 0 : words - kPartialWords;
  Word part[kPartialWords];
  HLS_PARTITION(part, 1)
  HLS_UNROLL_AHEAD
  for (uint32_t j = 0; j < kPartialWords; ++j) {
    HLS_UNROLL
    part[j] = zero_word();
  }
  HLS_UNROLL_AHEAD
  for (uint32_t j = 0; j < kPartialWords; ++j) {
    HLS_UNROLL
    if (first + j < words) part[(first + j) % kPartialWords] = partials.read();
  }
  float sum[kFloatsPerWord];
  HLS_PARTITION(sum, 1)
  HLS_UNROLL_AHEAD
  for (uint32_t lane = 0; lane < kFloatsPerWord; ++lane) {
    HLS_UNROLL
    const float even = get_float(part[0], lane) + get_float(part[2], lane);
    const float odd = get_float(part[1], lane) + get_float(part[3], lane);
    sum[lane] = even + odd;
  }
  HLS_UNROLL_AHEAD
  for (uint32_t round = 0; round < 4; ++round) {
    HLS_UNROLL
    HLS_UNROLL_AHEAD
    for (uint32_t lane = 0; lane < kFloatsPerWord / 2; ++lane) {
      HLS_UNROLL
      const uint32_t apart = (kFloatsPerWord / 2) >> round;
      if (lane < apart) sum[lane] = sum[lane] + sum[lane + apart];
    }
  }
  return sum[0];
}

}  // namespace kernels
}  // namespace flexllm
