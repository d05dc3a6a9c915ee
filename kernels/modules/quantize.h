// Quantisers: asymmetric per row for the linear layers, symmetric per head for attention
// (docs/numerics.md, section 3).
#pragma once

#include "kernels/modules/types.h"

namespace flexllm {
namespace kernels {

// Quantises `rows` rows of `size` floats to 0..levels. Sends each row's scale, then its numbers as
// bytes, 64 to a word, zero behind the last.
//   MaxSize  largest size
// Cycles: per row 2 * ceil(size / 16) + two divisions.
template <uint32_t MaxSize>
void quantize_rows(uint32_t rows, uint32_t size, uint32_t levels, Stream<Word>& in,
                   Stream<AsymmetricScale>& scales, Stream<Word>& out) {
  static_assert(MaxSize % kFloatsPerWord == 0, "a row buffer is whole words");
  const float top = static_cast<float>(levels);
  const uint32_t words = float_words(size);
  Word row[MaxSize / kFloatsPerWord];
  for (uint32_t i = 0; i < rows; ++i) {
    HLS_TRIPS(1, 256)
    float lowest = kInfinity;
    float highest = -kInfinity;
    for (uint32_t w = 0; w < words; ++w) {
      HLS_TRIPS(1, MaxSize / kFloatsPerWord)
      HLS_PIPELINE(1)
      row[w] = in.read();
      HLS_UNROLL_AHEAD
      for (uint32_t lane = 0; lane < kFloatsPerWord; ++lane) {
        HLS_UNROLL
        const float x = get_float(row[w], lane);
        if (w * kFloatsPerWord + lane < size) {
          lowest = min_of(x, lowest);
          highest = max_of(x, highest);
        }
      }
    }
    const AsymmetricScale scale = asymmetric_scale(lowest, highest, top);
    scales.write(scale);
    Word packed = zero_word();
    for (uint32_t w = 0; w < words; ++w) {
      HLS_TRIPS(1, MaxSize / kFloatsPerWord)
      HLS_PIPELINE(1)
      HLS_UNROLL_AHEAD
      for (uint32_t lane = 0; lane < kFloatsPerWord; ++lane) {
        HLS_UNROLL
        const uint32_t at = w * kFloatsPerWord + lane;
        const uint32_t q = quantize_asymmetric(get_float(row[w], lane), scale, top);
        if (at < size) set_byte(packed, at % kBytesPerWord, q);
      }
      if (w % 4 == 3 || w + 1 == words) {
        out.write(packed);
        packed = zero_word();
      }
    }
  }
}

// Largest magnitude of `size` floats, at least 0.
inline float largest_magnitude(const float* x, uint32_t size) {
  float largest = 0.0f;
  for (uint32_t i = 0; i < size; ++i) {
    HLS_TRIPS(8, 128)
    HLS_PIPELINE(1)
    largest = max_of(abs_of(x[i]), largest);
  }
  return largest;
}

// Bytes 64 w .. 64 w + 63 of a head of `size` floats as symmetric INT8, zero behind the last.
inline Word quantize_head_word(const float* x, uint32_t size, uint32_t word, float inverse) {
  Word out = zero_word();
  for (uint32_t i = 0; i < kBytesPerWord; ++i) {
    HLS_PIPELINE(1)
    const uint32_t at = word * kBytesPerWord + i;
    if (at < size) set_byte(out, i, static_cast<uint32_t>(quantize_signed(x[at] * inverse)));
  }
  return out;
}

}  // namespace kernels
}  // namespace flexllm
