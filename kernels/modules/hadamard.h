// Block-diagonal Walsh-Hadamard transform of rows (R4; docs/numerics.md, section 6), word by word
// as they stream past.
#pragma once

#include "kernels/hls/latency.h"
#include "kernels/modules/add_subtract.h"
#include "kernels/modules/types.h"

namespace flexllm {
namespace kernels {

constexpr uint32_t kWordStages = 4;  // h = 1, 2, 4, 8: pairs within a word

constexpr uint32_t log2_of(uint32_t power) { return power <= 1 ? 0 : 1 + log2_of(power / 2); }

// The stages of a block that pair elements of a word: (a, b) at distance h becomes (a + b, a - b).
inline Word transform_word(const Word& word, uint32_t block) {
  float x[kFloatsPerWord];
  HLS_PARTITION(x, 1)
  HLS_UNROLL_AHEAD
  for (uint32_t lane = 0; lane < kFloatsPerWord; ++lane) {
    HLS_UNROLL
    x[lane] = get_float(word, lane);
  }
  HLS_UNROLL_AHEAD
  for (uint32_t stage = 0; stage < kWordStages; ++stage) {
    HLS_UNROLL
    const uint32_t h = 1u << stage;
    HLS_UNROLL_AHEAD
    for (uint32_t lane = 0; lane < kFloatsPerWord; ++lane) {
      HLS_UNROLL
      if ((lane & h) != 0 || h >= block) continue;
      const float a = x[lane];
      const float b = x[lane + h];
      x[lane] = a + b;
      x[lane + h] = a - b;
    }
  }
  Word out = zero_word();
  HLS_UNROLL_AHEAD
  for (uint32_t lane = 0; lane < kFloatsPerWord; ++lane) {
    HLS_UNROLL
    set_float(out, lane, x[lane]);
  }
  return out;
}

inline Word add_or_subtract_words(const Word& a, const Word& b, bool subtract) {
  Word out = zero_word();
  HLS_UNROLL_AHEAD
  for (uint32_t lane = 0; lane < kFloatsPerWord; ++lane) {
    HLS_UNROLL
    set_float(out, lane, add_or_subtract(get_float(a, lane), get_float(b, lane), subtract));
  }
  return out;
}

// Transforms `rows` rows of `size` floats in blocks of `block` elements (a power of two up to
// MaxBlock that divides `size`) and multiplies by `scale`; block 0 passes rows through.
//
// A stage that pairs words at distance d keeps them until it has used them: as the first d words of
// a pair of runs come in, the differences of the pair before leave; as the last d come in, the sums
// leave. So it is d words behind, and a block of B / 16 words needs B / 16 - 1 words in all. Stages
// beyond the block hand on what they get.
//   MaxBlock  largest block, at least 16
//   Interval  cycles a word; 16 / Interval adders a stage, 16 / Interval multipliers
// Cycles: Interval * (rows * ceil(size / 16) + max(block / 16, 1) - 1), continuous over blocks and
// rows, and once the depth of log2(MaxBlock) additions and a multiplication.
// Memory: two words for each word of delay: 2 * log2(MaxBlock / 16) memories of MaxBlock / 2 floats
// at most. DSP: 16 * (2 * log2(MaxBlock) + 3) / Interval; 336 at MaxBlock 512 and Interval 1.
template <uint32_t MaxBlock, uint32_t Interval = 1>
void transform_blocks(uint32_t rows, uint32_t size, uint32_t block, float scale, Stream<Word>& in,
                      Stream<Word>& out) {
  static_assert(MaxBlock % kFloatsPerWord == 0 && (MaxBlock & (MaxBlock - 1)) == 0,
                "the largest block is whole words and a power of two");
  constexpr uint32_t kStages = log2_of(MaxBlock / kFloatsPerWord);  // that pair words
  constexpr uint32_t kMemories = kStages > 0 ? kStages : 1;
  constexpr uint32_t kLongest = MaxBlock > 2 * kFloatsPerWord ? MaxBlock / 2 / kFloatsPerWord : 1;
  const uint32_t words = rows * float_words(size);
  const uint32_t block_words = block / kFloatsPerWord;
  const uint32_t delay = block_words > 1 ? block_words - 1 : 0;
  Word first[kMemories][kLongest] = {};  // of each stage: the first run of words, and the second
  Word second[kMemories][kLongest] = {};
  HLS_PARTITION(first, 1)
  HLS_PARTITION(second, 1)
  for (uint32_t i = 0; i < words + delay; ++i) {
    HLS_TRIPS(1, 1 << 18)
    HLS_PIPELINE(Interval)
    HLS_DEPTH((kWordStages + kStages) * latency::add + latency::multiply)
    Word word = i < words ? transform_word(in.read(), block) : zero_word();
    HLS_UNROLL_AHEAD
    for (uint32_t stage = 0; stage < kStages; ++stage) {
      HLS_UNROLL
      const uint32_t distance = 1u << stage;
      const uint32_t number = i - (distance - 1);  // of the word that comes in, behind the delays
      const uint32_t slot = number & (distance - 1);
      const bool summing = (number & distance) != 0;
      const Word a = first[stage][slot];
      const Word b = summing ? word : second[stage][slot];
      const Word result = add_or_subtract_words(a, b, !summing);
      if (distance < block_words) {
        if (summing) {
          second[stage][slot] = word;
        } else {
          first[stage][slot] = word;
        }
        word = result;
      }
    }
    Word scaled = word;
    HLS_UNROLL_AHEAD
    for (uint32_t lane = 0; lane < kFloatsPerWord; ++lane) {
      HLS_UNROLL
      const float product = get_float(word, lane) * scale;
      if (block != 0) set_float(scaled, lane, product);
    }
    if (i >= delay) out.write(scaled);
  }
}

}  // namespace kernels
}  // namespace flexllm
