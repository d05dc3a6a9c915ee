// RMS norm of rows that pass by as words of 16 floats (docs/numerics.md, section 2): the squares of
// one row are summed while the row before is scaled.
#pragma once

#include "kernels/hls/latency.h"
#include "kernels/modules/types.h"
#include "kernels/modules/vector_sum.h"

namespace flexllm {
namespace kernels {

// A row's words wait here for its reciprocal, with those of the next row behind them: a row of
// `floats`, and what comes in while the sums are folded.
constexpr int kept_words(uint32_t floats) {
  return static_cast<int>(
      float_words(floats) + kPartialWords +
      (latency::multiply + 2 * latency::add + latency::fold + 2 * latency::divide + latency::sqrt));
}

// Sends rows on and, if `enabled`, behind each the partial sums of its squares: the last words of
// 16 sums each, at most four, in the order in which they became final. Only the words' true lanes
// are summed.
//   Interval  cycles a word, if enabled; 16 / Interval multipliers and adders. The sums of a word
//             go on four words later, which must be as long as an addition.
// Cycles: Interval * rows * ceil(size / 16); one a word if not enabled.
// DSP: (3 + 2) * 16 / Interval.
template <uint32_t Interval>
void sum_squares(uint32_t rows, uint32_t size, bool enabled, Stream<Word>& in, Stream<Word>& kept,
                 Stream<Word>& partials) {
  static_assert(kPartialWords * Interval >= latency::add, "a sum is ready when it goes on");
  const uint32_t words = float_words(size);
  for (uint32_t i = 0; !enabled && i < rows * words; ++i) {
    HLS_TRIPS(1, 1 << 18)
    HLS_PIPELINE(1)
    HLS_DEPTH(1)
    kept.write(in.read());
  }
  PartialSums sums = {};
  HLS_PARTITION(sums.value, 0)
  uint32_t w = 0;  // of the row
  for (uint32_t i = 0; enabled && i < rows * words; ++i) {
    HLS_TRIPS(1, 1 << 18)
    HLS_PIPELINE(Interval)
    HLS_DEPTH(1)
    const Word data = in.read();
    kept.write(data);
    float squares[kFloatsPerWord];
    HLS_PARTITION(squares, 1)
    HLS_UNROLL_AHEAD
    for (uint32_t lane = 0; lane < kFloatsPerWord; ++lane) {
      HLS_UNROLL
      const float x = get_float(data, lane);
      squares[lane] = x * x;
    }
    const Word out = sums.add(w, size, squares);
    HLS_DEPTH(1 + latency::multiply + latency::add)
    if (w + kPartialWords >= words) partials.write(out);
    w = w + 1 == words ? 0 : w + 1;
  }
}

// 1 / sqrt(mean square + eps) of each row, if `enabled`.
//   Interval  cycles a row at least; 63 / Interval adders. At least 4: the words of a row's sums.
// Cycles: Interval * rows; a row's reciprocal comes 100 cycles behind its sums.
// DSP: 2 * ceil(64 / Interval).
template <uint32_t Interval>
void fold_squares(uint32_t rows, uint32_t size, bool enabled, float eps, Stream<Word>& partials,
                  Stream<float>& reciprocals) {
  static_assert(Interval >= kPartialWords, "a word of sums is read a cycle");
  const uint32_t words = float_words(size);
  const float count = static_cast<float>(size);
  for (uint32_t i = 0; enabled && i < rows; ++i) {
    HLS_TRIPS(1, 1 << 14)
    HLS_PIPELINE(Interval)
    HLS_DEPTH(latency::fold + 2 * latency::divide + latency::add + latency::sqrt)
    const float mean = fold_partial_words(words, partials) / count;
    reciprocals.write(reciprocal_sqrt(mean + eps));
  }
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

// Reads the gain, then multiplies rows by their reciprocals and by it; `enabled` false passes them.
//   MaxSize   largest size
//   Interval  cycles a word, if enabled; 32 / Interval multipliers
// Cycles: ceil(size / 16) + Interval * rows * ceil(size / 16); one a word if not enabled.
// Memory: MaxSize floats. DSP: 3 * 32 / Interval.
template <uint32_t MaxSize, uint32_t Interval>
void scale_rows(uint32_t rows, uint32_t size, bool enabled, Stream<Word>& gains, Stream<Word>& kept,
                Stream<float>& reciprocals, Stream<Word>& out) {
  static_assert(MaxSize % kFloatsPerWord == 0, "a gain is kept in whole words");
  const uint32_t words = float_words(size);
  Word gain[MaxSize / kFloatsPerWord];
  for (uint32_t i = 0; !enabled && i < rows * words; ++i) {
    HLS_TRIPS(1, 1 << 18)
    HLS_PIPELINE(1)
    HLS_DEPTH(1)
    out.write(kept.read());
  }
  for (uint32_t w = 0; enabled && w < words; ++w) {
    HLS_TRIPS(1, MaxSize / kFloatsPerWord)
    HLS_PIPELINE(1)
    gain[w] = gains.read();
  }
  float r = 0.0f;
  uint32_t w = 0;  // of the row
  for (uint32_t i = 0; enabled && i < rows * words; ++i) {
    HLS_TRIPS(1, 1 << 18)
    HLS_PIPELINE(Interval)
    HLS_DEPTH(latency::chip_read + 2 * latency::multiply)
    if (w == 0) r = reciprocals.read();
    out.write(apply_gain(kept.read(), gain[w], r, w, size));
    w = w + 1 == words ? 0 : w + 1;
  }
}

// rmsnorm of `rows` rows of `size` floats; `enabled` false passes them through untouched. The gain
// is read once and kept.
//   MaxSize   largest size
//   Interval  cycles a word; at least 2
// Cycles: max(Interval * ceil(size / 16), 16) a row, and behind the last row's sums once
// 100 + Interval * ceil(size / 16); one a word if not enabled.
// Memory: two rows of MaxSize floats. DSP: 176 / Interval + 8: 96 at Interval 2, 52 at 4.
template <uint32_t MaxSize, uint32_t Interval = 2>
void normalize(uint32_t rows, uint32_t size, bool enabled, float eps, Stream<Word>& gains,
               Stream<Word>& in, Stream<Word>& out) {
  constexpr uint32_t kFoldInterval = 16;
  HLS_DATAFLOW("normalize");
  Fifo<Word, kept_words(MaxSize)> kept("kept");
  Fifo<Word, 2 * kPartialWords> partials("partials");
  Fifo<float, 8> reciprocals("reciprocals");
  HLS_TASK(sum_squares<Interval>(rows, size, enabled, in, kept, partials));
  HLS_TASK(fold_squares<kFoldInterval>(rows, size, enabled, eps, partials, reciprocals));
  HLS_TASK(scale_rows<MaxSize, Interval>(rows, size, enabled, gains, kept, reciprocals, out));
  HLS_DATAFLOW_END();
}

}  // namespace kernels
}  // namespace flexllm
