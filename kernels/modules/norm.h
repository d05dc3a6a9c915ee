// RMS norm of rows that pass by as words of 16 floats (docs/numerics.md, section 2).
#pragma once

#include "kernels/modules/types.h"

namespace flexllm {
namespace kernels {

// Adds the squares of a word's true lanes to the partial sums; `word` counts from the row's start.
inline void add_squares(const Word& data, uint32_t word, uint32_t size,
                        float partial[kPartialSums]) {
  HLS_UNROLL_AHEAD
  for (uint32_t i = 0; i < kFloatsPerWord; ++i) {
    HLS_UNROLL
    const uint32_t at = word * kFloatsPerWord + i;
    const float x = get_float(data, i);
    const float square = x * x;
    const uint32_t slot = at % static_cast<uint32_t>(kPartialSums);
    if (at < size) partial[slot] = partial[slot] + square;
  }
}

// 1 / sqrt(mean square + eps) from the partial sums of squares.
inline float rms_reciprocal(float partial[kPartialSums], uint32_t size, float eps) {
  const float mean = fold_partial_sums(partial) / static_cast<float>(size);
  return reciprocal_sqrt(mean + eps);
}

// (x * r) * g in the true lanes, +0 behind them.
inline Word apply_gain(const Word& data, const Word& gain, float r, uint32_t word, uint32_t size) {
  Word out = zero_word();
  HLS_UNROLL_AHEAD
  for (uint32_t i = 0; i < kFloatsPerWord; ++i) {
    HLS_UNROLL
    const float scaled = get_float(data, i) * r;
    const float y = scaled * get_float(gain, i);
    if (word * kFloatsPerWord + i < size) set_float(out, i, y);
  }
  return out;
}

// Reads a norm's gain.
template <uint32_t MaxSize>
inline void read_gain_words(Stream<Word>& gains, uint32_t words,
                            Word gain[MaxSize / kFloatsPerWord]) {
  for (uint32_t w = 0; w < words; ++w) {
    HLS_TRIPS(1, MaxSize / kFloatsPerWord)
    HLS_PIPELINE(1)
    gain[w] = gains.read();
  }
}

// rmsnorm of one row. Cycles: 2 * ceil(size / 16) + a fold of 6 additions, a division and a square
// root. The 64 partial sums give an adder 4 words before its slot comes round again.
template <uint32_t MaxSize>
inline void normalize_row(uint32_t size, float eps, const Word gain[MaxSize / kFloatsPerWord],
                          Stream<Word>& in, Stream<Word>& out) {
  static_assert(MaxSize % kFloatsPerWord == 0, "a row buffer is whole words");
  const uint32_t words = float_words(size);
  Word row[MaxSize / kFloatsPerWord];
  float partial[kPartialSums] = {};
  HLS_PARTITION(partial, 1)
  for (uint32_t w = 0; w < words; ++w) {
    HLS_TRIPS(1, MaxSize / kFloatsPerWord)
    HLS_PIPELINE(2)
    row[w] = in.read();
    add_squares(row[w], w, size, partial);
  }
  const float r = rms_reciprocal(partial, size, eps);
  for (uint32_t w = 0; w < words; ++w) {
    HLS_TRIPS(1, MaxSize / kFloatsPerWord)
    HLS_PIPELINE(1)
    out.write(apply_gain(row[w], gain[w], r, w, size));
  }
}

// rmsnorm of `rows` rows of `size` floats; `enabled` false passes them through untouched. The gain
// is read once and kept.
//   MaxSize  largest size
// Cycles: those of normalize_row per row.
template <uint32_t MaxSize>
void normalize(uint32_t rows, uint32_t size, bool enabled, float eps, Stream<Word>& gains,
               Stream<Word>& in, Stream<Word>& out) {
  const uint32_t words = float_words(size);
  Word gain[MaxSize / kFloatsPerWord];
  if (enabled) read_gain_words<MaxSize>(gains, words, gain);
  for (uint32_t i = 0; i < rows; ++i) {
    HLS_TRIPS(1, 256)
    if (enabled) {
      normalize_row<MaxSize>(size, eps, gain, in, out);
      continue;
    }
    for (uint32_t w = 0; w < words; ++w) {
      HLS_TRIPS(1, MaxSize / kFloatsPerWord)
      HLS_PIPELINE(1)
      out.write(in.read());
    }
  }
}

}  // namespace kernels
}  // namespace flexllm
