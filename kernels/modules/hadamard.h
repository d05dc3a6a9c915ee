// Block-diagonal Walsh-Hadamard transform of rows (R4; docs/numerics.md, section 6).
#pragma once

#include "kernels/modules/types.h"

namespace flexllm {
namespace kernels {

// Transforms `rows` rows of `size` floats in blocks of `block` elements (a power of two up to
// MaxBlock that divides `size`) and multiplies by `scale`; block 0 passes rows through. Works on
// spans of MaxBlock elements, which hold whole blocks whatever their size.
//   MaxBlock  largest block
// Cycles: per span MaxBlock / 16 to fill, log2(block) * MaxBlock / 16 for the stages, as many to
// drain; 16 adders.
template <uint32_t MaxBlock>
void transform_blocks(uint32_t rows, uint32_t size, uint32_t block, float scale, Stream<Word>& in,
                      Stream<Word>& out) {
  static_assert(MaxBlock % kFloatsPerWord == 0 && (MaxBlock & (MaxBlock - 1)) == 0,
                "a span is whole words and a power of two");
  const uint32_t words = float_words(size);
  for (uint32_t i = 0; i < rows; ++i) {
    HLS_TRIPS(1, 256)
    for (uint32_t begin = 0; begin < words; begin += MaxBlock / kFloatsPerWord) {
      HLS_TRIPS(1, 32)
      const uint32_t left = words - begin;
      const uint32_t span = left < MaxBlock / kFloatsPerWord ? left : MaxBlock / kFloatsPerWord;
      float x[MaxBlock];
      for (uint32_t w = 0; w < span; ++w) {
        HLS_TRIPS(1, MaxBlock / kFloatsPerWord)
        HLS_PIPELINE(1)
        const Word word = in.read();
        HLS_UNROLL_AHEAD
        for (uint32_t lane = 0; lane < kFloatsPerWord; ++lane) {
          HLS_UNROLL
          x[w * kFloatsPerWord + lane] = get_float(word, lane);
        }
      }
      for (uint32_t h = 1; h < block; h *= 2) {
        HLS_TRIPS(1, 9)
        for (uint32_t pair = 0; pair < span * kFloatsPerWord / 2; ++pair) {
          HLS_TRIPS(1, MaxBlock / 2)
          HLS_PIPELINE(1)
          HLS_UNROLL_BY(8)
          const uint32_t low = (pair / h) * 2 * h + pair % h;  // bit h clear
          if (low + h < span * kFloatsPerWord) {
            const float a = x[low];
            const float b = x[low + h];
            x[low] = a + b;
            x[low + h] = a - b;
          }
        }
      }
      for (uint32_t w = 0; w < span; ++w) {
        HLS_TRIPS(1, MaxBlock / kFloatsPerWord)
        HLS_PIPELINE(1)
        Word word = zero_word();
        HLS_UNROLL_AHEAD
        for (uint32_t lane = 0; lane < kFloatsPerWord; ++lane) {
          HLS_UNROLL
          const float value = x[w * kFloatsPerWord + lane];
          set_float(word, lane, block == 0 ? value : value * scale);
        }
        out.write(word);
      }
    }
  }
}

}  // namespace kernels
}  // namespace flexllm
