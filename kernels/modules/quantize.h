// Quantisers: asymmetric per row for the linear layers, the scales of symmetric heads for attention
// (docs/numerics.md, section 3). The range of one row is found while the row before is rounded.
#pragma once

#include "kernels/hls/latency.h"
#include "kernels/modules/types.h"

namespace flexllm {
namespace kernels {

// Words of a row that go by while the row's scale is computed from its extrema.
constexpr uint32_t kScaleDelay = latency::maximum + latency::add + 2 * latency::divide;
// The same where the extrema are first made into the range of a grid.
constexpr uint32_t kRangeDelay = latency::maximum + latency::multiply + kScaleDelay;

// Lowest and highest of some floats; NaN is in no extremum.
struct FloatRange {
  float lowest;
  float highest;
};

inline FloatRange empty_range() { return FloatRange{kInfinity, -kInfinity}; }

inline FloatRange join_ranges(const FloatRange& a, const FloatRange& b) {
  return FloatRange{min_of(b.lowest, a.lowest), max_of(b.highest, a.highest)};
}

// Of the first `count` lanes of a word, in four rounds.
inline FloatRange range_of_word(const Word& word, uint32_t count) {
  FloatRange range[kFloatsPerWord];
  HLS_PARTITION(range, 1)
  HLS_UNROLL_AHEAD
  for (uint32_t lane = 0; lane < kFloatsPerWord; ++lane) {
    HLS_UNROLL
    const float x = get_float(word, lane);
    const bool counts = lane < count && x == x;
    range[lane] = counts ? FloatRange{x, x} : empty_range();
  }
  HLS_UNROLL_AHEAD
  for (uint32_t round = 0; round < 4; ++round) {
    HLS_UNROLL
    HLS_UNROLL_AHEAD
    for (uint32_t lane = 0; lane < kFloatsPerWord / 2; ++lane) {
      HLS_UNROLL
      const uint32_t apart = (kFloatsPerWord / 2) >> round;
      if (lane < apart) range[lane] = join_ranges(range[lane], range[lane + apart]);
    }
  }
  return range[0];
}

// Sends rows on, and behind each the scale that its range asks for. The extrema of every fourth
// word are joined first, so that a comparison has four cycles.
// Cycles: rows * ceil(size / 16); a scale comes kRangeDelay cycles behind its row. DSP: 6 + 2.
inline void find_ranges(uint32_t rows, uint32_t size, const ActivationGrid grid, Stream<Word>& in,
                        Stream<Word>& kept, Stream<AsymmetricScale>& scales) {
  constexpr uint32_t kAges = 4;
  const uint32_t words = float_words(size);
  FloatRange ranges[kAges];  // the oldest first
  HLS_PARTITION(ranges, 0)
  HLS_UNROLL_AHEAD
  for (uint32_t age = 0; age < kAges; ++age) {
    HLS_UNROLL
    ranges[age] = empty_range();
  }
  uint32_t w = 0;
  for (uint32_t i = 0; i < rows * words; ++i) {
    HLS_TRIPS(1, 1 << 18)
    HLS_PIPELINE(1)
    HLS_DEPTH(1)
    const Word word = in.read();
    kept.write(word);
    const FloatRange here = range_of_word(word, size - w * kFloatsPerWord);
    const FloatRange joined = join_ranges(w < kAges ? empty_range() : ranges[0], here);
    HLS_UNROLL_AHEAD
    for (uint32_t age = 0; age + 1 < kAges; ++age) {
      HLS_UNROLL
      ranges[age] = w == 0 ? empty_range() : ranges[age + 1];  // nothing of the row before
    }
    ranges[kAges - 1] = joined;
    const bool last = w + 1 == words;
    if (last) {
      HLS_DEPTH(kRangeDelay)
      const FloatRange range =
          join_ranges(join_ranges(ranges[0], ranges[1]), join_ranges(ranges[2], ranges[3]));
      scales.write(asymmetric_scale(range.lowest, range.highest, grid));
    }
    w = last ? 0 : w + 1;
  }
}

// Rounds rows by their scales and sends the scales on.
// Cycles: rows * ceil(size / 16). DSP: 16 * (2 + 3), and 32 to round.
inline void round_rows(uint32_t rows, uint32_t size, float top, Stream<AsymmetricScale>& scales,
                       Stream<Word>& kept, Stream<AsymmetricScale>& out_scales, Stream<Word>& out) {
  constexpr uint32_t kParts = kBytesPerWord / kFloatsPerWord;
  const uint32_t words = float_words(size);
  AsymmetricScale scale = {0.0f, 0.0f, 0.0f};
  Word packed = zero_word();
  uint32_t w = 0;
  for (uint32_t i = 0; i < rows * words; ++i) {
    HLS_TRIPS(1, 1 << 18)
    HLS_PIPELINE(1)
    HLS_DEPTH(1)
    if (w == 0) {
      scale = scales.read();
      out_scales.write(scale);
    }
    HLS_DEPTH(latency::add + latency::multiply + latency::to_int)
    const Word word = kept.read();
    const uint32_t part = w % kParts;
    if (part == 0) packed = zero_word();
    HLS_UNROLL_AHEAD
    for (uint32_t lane = 0; lane < kFloatsPerWord; ++lane) {
      HLS_UNROLL
      const uint32_t q = quantize_asymmetric(get_float(word, lane), scale, top);
      if (w * kFloatsPerWord + lane < size) set_byte(packed, part * kFloatsPerWord + lane, q);
    }
    const bool last = w + 1 == words;
    if (part + 1 == kParts || last) out.write(packed);
    w = last ? 0 : w + 1;
  }
}

// Quantises `rows` rows of `size` floats to 0..grid.levels. Sends each row's scale, then its
// numbers as bytes, 64 to a word, zero behind the last.
//   MaxSize  largest size
// Cycles: rows * ceil(size / 16), a word a cycle over all rows; behind the last word once
// kRangeDelay + ceil(size / 16).
// Memory: a row of MaxSize floats, and kRangeDelay words. DSP: 120.
template <uint32_t MaxSize>
void quantize_rows(uint32_t rows, uint32_t size, const ActivationGrid grid, Stream<Word>& in,
                   Stream<AsymmetricScale>& scales, Stream<Word>& out) {
  static_assert(MaxSize % kFloatsPerWord == 0, "a row is kept in whole words");
  const float top = static_cast<float>(grid.levels);
  HLS_DATAFLOW("quantize_rows");
  Fifo<Word, static_cast<int>(MaxSize / kFloatsPerWord + kRangeDelay + 2)> kept("kept");
  Fifo<AsymmetricScale, 8> found("found");
  HLS_TASK(find_ranges(rows, size, grid, in, kept, found));
  HLS_TASK(round_rows(rows, size, top, found, kept, scales, out));
  HLS_DATAFLOW_END();
}

// Largest magnitude of a word's first `count` lanes, at least 0.
inline float largest_magnitude(const Word& word, uint32_t count) {
  float magnitude[kFloatsPerWord];
  HLS_PARTITION(magnitude, 1)
  HLS_UNROLL_AHEAD
  for (uint32_t lane = 0; lane < kFloatsPerWord; ++lane) {
    HLS_UNROLL
    const float x = abs_of(get_float(word, lane));
    magnitude[lane] = lane < count ? max_of(x, 0.0f) : 0.0f;
  }
  HLS_UNROLL_AHEAD
  for (uint32_t round = 0; round < 4; ++round) {
    HLS_UNROLL
    HLS_UNROLL_AHEAD
    for (uint32_t lane = 0; lane < kFloatsPerWord / 2; ++lane) {
      HLS_UNROLL
      const uint32_t apart = (kFloatsPerWord / 2) >> round;
      if (lane < apart) magnitude[lane] = max_of(magnitude[lane + apart], magnitude[lane]);
    }
  }
  return magnitude[0];
}

// Sends vectors on, and behind each its symmetric INT8 scale.
//   Interval  cycles a word, at least a comparison
// Cycles: Interval * vectors * ceil(size / 16); a scale comes kScaleDelay cycles behind its vector.
template <uint32_t Interval>
void find_scales(uint32_t vectors, uint32_t size, Stream<Word>& in, Stream<Word>& kept,
                 Stream<SymmetricScale>& scales) {
  static_assert(Interval >= latency::compare, "the maximum goes from word to word");
  const uint32_t words = float_words(size);
  float largest = 0.0f;
  uint32_t w = 0;
  for (uint32_t i = 0; i < vectors * words; ++i) {
    HLS_TRIPS(1, 1 << 18)
    HLS_PIPELINE(Interval)
    HLS_DEPTH(1)
    const Word word = in.read();
    kept.write(word);
    largest = max_of(largest_magnitude(word, size - w * kFloatsPerWord), w == 0 ? 0.0f : largest);
    const bool last = w + 1 == words;
    HLS_DEPTH(kScaleDelay)
    if (last) scales.write(symmetric_scale(largest));
    w = last ? 0 : w + 1;
  }
}

}  // namespace kernels
}  // namespace flexllm
