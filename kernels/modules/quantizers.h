// Quantisers and dequantisers of any scheme and scope, for accelerators that are composed from this
// library; the kernels of ours use quantize.h. Shares the primitives of contract/numerics.h.
//
// What is chosen:
//   scheme   Symmetric<Bits> or Asymmetric<Bits>, up to 8 bits: a template parameter
//   scope    ScaleScope: one scale per tensor, token (row), head or group; channels have modules of
//            their own
//   source   static: a stream brings the scales to round_spans; dynamic: quantize_spans finds them
// Rows are words of 16 floats, numbers are bytes, 64 to a word; each row begins with a word.
// Symmetric numbers are signed bytes.
#pragma once

#include "kernels/hls/latency.h"
#include "kernels/modules/quantize.h"
#include "kernels/modules/types.h"

namespace flexllm {
namespace kernels {

// x ~ scale * q, |q| <= 2^(Bits - 1) - 1. A vector of zeros has scale 0 and q 0.
template <uint32_t Bits>
struct Symmetric {
  static_assert(Bits >= 2 && Bits <= 8, "a number is a byte");
  static constexpr uint32_t top = (1u << (Bits - 1)) - 1;

  static AsymmetricScale scale_of(const FloatRange& range) {
    const float largest = max_of(-range.lowest, max_of(range.highest, 0.0f));
    AsymmetricScale s;
    s.zero = 0.0f;
    s.scale = largest / static_cast<float>(top);
    s.inverse = s.scale > 0.0f ? 1.0f / s.scale : 0.0f;
    return s;
  }
  static uint32_t encode(float x, const AsymmetricScale& s) {
    const float limit = static_cast<float>(top);
    const float v = x * s.inverse;
    const float low = v > -limit ? v : -limit;
    return static_cast<uint32_t>(round_to_integer(low < limit ? low : limit)) & 255u;
  }
  static float decode(uint32_t byte, const AsymmetricScale& s) {
    const int32_t q = static_cast<int32_t>(byte ^ 128u) - 128;
    return static_cast<float>(q) * s.scale;
  }
};

// x ~ zero + scale * q, 0 <= q <= 2^Bits - 1.
template <uint32_t Bits>
struct Asymmetric {
  static_assert(Bits >= 1 && Bits <= 8, "a number is a byte");
  static constexpr uint32_t top = (1u << Bits) - 1;

  static AsymmetricScale scale_of(const FloatRange& range) {
    return asymmetric_scale(range.lowest, range.highest, ActivationGrid{top, 0, false});
  }
  static uint32_t encode(float x, const AsymmetricScale& s) {
    return quantize_asymmetric(x, s, static_cast<float>(top));
  }
  static float decode(uint32_t byte, const AsymmetricScale& s) {
    const float product = static_cast<float>(byte) * s.scale;
    return product + s.zero;
  }
};

// Which numbers share a scale: `span` floats of a row, whole words but for the last of the row.
struct ScaleScope {
  uint32_t rows;
  uint32_t size;  // of a row
  uint32_t span;
  bool tensor;  // all rows share one scale

  static ScaleScope per_tensor(uint32_t rows, uint32_t size) {
    return ScaleScope{rows, size, size, true};
  }
  static ScaleScope per_token(uint32_t rows, uint32_t size) {
    return ScaleScope{rows, size, size, false};
  }
  // Heads side by side, or groups; `span` is a multiple of 16.
  static ScaleScope per_span(uint32_t rows, uint32_t size, uint32_t span) {
    return ScaleScope{rows, size, span, false};
  }
  uint32_t words() const { return rows * float_words(size); }
  uint32_t scales() const { return tensor ? 1 : rows * divide_up(size, span); }
};

// Where in the rows and spans the next word lies.
struct SpanWalk {
  uint32_t w = 0;     // of the row
  uint32_t span = 0;  // words of the span that went by
  uint32_t row = 0;

  bool begins() const { return span == 0; }
  bool row_ends(const ScaleScope& s) const { return w + 1 == float_words(s.size); }
  bool ends(const ScaleScope& s) const {
    if (s.tensor) return row_ends(s) && row + 1 == s.rows;
    return row_ends(s) || (span + 1) * kFloatsPerWord >= s.span;
  }
  uint32_t lanes(const ScaleScope& s) const { return s.size - w * kFloatsPerWord; }  // or more
  void advance(const ScaleScope& s) {
    const bool wraps = row_ends(s);
    span = ends(s) ? 0 : span + 1;
    w = wraps ? 0 : w + 1;
    if (wraps) ++row;
  }
};

// Sends words on, and behind each span its scale, twice: for rounding and to go with the numbers.
//   Scheme  of the numbers
// Cycles: words; a scale comes kScaleDelay cycles behind its span. DSP: those of dividers and an
// adder.
template <typename Scheme>
void find_span_scales(const ScaleScope scope, Stream<Word>& in, Stream<Word>& kept,
                      Stream<AsymmetricScale>& scales, Stream<AsymmetricScale>& out_scales) {
  constexpr uint32_t kAges = 4;  // a comparison has the cycles of four words
  FloatRange ranges[kAges];
  HLS_PARTITION(ranges, 0)
  HLS_UNROLL_AHEAD
  for (uint32_t age = 0; age < kAges; ++age) {
    HLS_UNROLL
    ranges[age] = empty_range();
  }
  SpanWalk at;
  for (uint32_t i = 0; i < scope.words(); ++i) {
    HLS_TRIPS(1, 1 << 18)
    HLS_PIPELINE(1)
    HLS_DEPTH(1)
    const Word word = in.read();
    kept.write(word);
    const FloatRange here = range_of_word(word, at.lanes(scope));
    const FloatRange joined = join_ranges(at.span < kAges ? empty_range() : ranges[0], here);
    HLS_UNROLL_AHEAD
    for (uint32_t age = 0; age + 1 < kAges; ++age) {
      HLS_UNROLL
      ranges[age] = at.begins() ? empty_range() : ranges[age + 1];
    }
    ranges[kAges - 1] = joined;
    if (at.ends(scope)) {
      HLS_DEPTH(kScaleDelay)
      const AsymmetricScale scale = Scheme::scale_of(
          join_ranges(join_ranges(ranges[0], ranges[1]), join_ranges(ranges[2], ranges[3])));
      scales.write(scale);
      out_scales.write(scale);
    }
    at.advance(scope);
  }
}

// Rounds spans by their scales, which come one a span: the static quantiser.
//   Scheme  of the numbers
// Cycles: words. DSP: 16 * (3 + 2), 2 fewer a lane where symmetric; and 32 to round.
template <typename Scheme>
void round_spans(const ScaleScope scope, Stream<AsymmetricScale>& scales, Stream<Word>& in,
                 Stream<Word>& out) {
  constexpr uint32_t kParts = kBytesPerWord / kFloatsPerWord;
  AsymmetricScale scale = {0.0f, 0.0f, 0.0f};
  Word packed = zero_word();
  SpanWalk at;
  for (uint32_t i = 0; i < scope.words(); ++i) {
    HLS_TRIPS(1, 1 << 18)
    HLS_PIPELINE(1)
    HLS_DEPTH(latency::add + latency::multiply + latency::to_int)
    if (at.begins()) scale = scales.read();
    const Word word = in.read();
    const uint32_t part = at.w % kParts;
    if (part == 0) packed = zero_word();
    HLS_UNROLL_AHEAD
    for (uint32_t lane = 0; lane < kFloatsPerWord; ++lane) {
      HLS_UNROLL
      const uint32_t q = Scheme::encode(get_float(word, lane), scale);
      if (lane < at.lanes(scope)) set_byte(packed, part * kFloatsPerWord + lane, q);
    }
    if (part + 1 == kParts || at.row_ends(scope)) out.write(packed);
    at.advance(scope);
  }
}

// The dynamic quantiser: finds the scale of each span, then rounds it, while the next comes in.
//   Scheme   of the numbers
//   MaxKept  floats of the largest span; per tensor, of the tensor
// Cycles: words, and once those of the last span and kScaleDelay.
// Memory: MaxKept floats. DSP: as round_spans.
template <typename Scheme, uint32_t MaxKept>
void quantize_spans(const ScaleScope scope, Stream<Word>& in, Stream<AsymmetricScale>& scales,
                    Stream<Word>& out) {
  HLS_DATAFLOW("quantize_spans");
  Fifo<Word, static_cast<int>(float_words(MaxKept) + kScaleDelay + 2)> kept("kept");
  Fifo<AsymmetricScale, static_cast<int>(kScaleDelay)> found("found");
  HLS_TASK(find_span_scales<Scheme>(scope, in, kept, found, scales));
  HLS_TASK(round_spans<Scheme>(scope, found, kept, out));
  HLS_DATAFLOW_END();
}

// Numbers back to floats, by the scales of their spans; zero behind a row's end.
//   Scheme  of the numbers
// Cycles: words (of floats). DSP: 16 * 3, and 32 where asymmetric.
template <typename Scheme>
void dequantize_spans(const ScaleScope scope, Stream<AsymmetricScale>& scales, Stream<Word>& in,
                      Stream<Word>& out) {
  constexpr uint32_t kParts = kBytesPerWord / kFloatsPerWord;
  AsymmetricScale scale = {0.0f, 0.0f, 0.0f};
  Word packed = zero_word();
  SpanWalk at;
  for (uint32_t i = 0; i < scope.words(); ++i) {
    HLS_TRIPS(1, 1 << 18)
    HLS_PIPELINE(1)
    HLS_DEPTH(latency::from_int + latency::multiply + latency::add)
    if (at.begins()) scale = scales.read();
    const uint32_t part = at.w % kParts;
    if (part == 0) packed = in.read();
    Word word = zero_word();
    HLS_UNROLL_AHEAD
    for (uint32_t lane = 0; lane < kFloatsPerWord; ++lane) {
      HLS_UNROLL
      const float x = Scheme::decode(get_byte(packed, part * kFloatsPerWord + lane), scale);
      if (lane < at.lanes(scope)) set_float(word, lane, x);
    }
    out.write(word);
    at.advance(scope);
  }
}

// Scales of the channels (columns) of rows of up to MaxSize floats, by lane.
template <uint32_t MaxSize>
struct ChannelScales {
  AsymmetricScale scale[kFloatsPerWord][float_words(MaxSize)];

  // One scale a channel, a scale a cycle.
  void read(uint32_t size, Stream<AsymmetricScale>& scales) {
    for (uint32_t i = 0; i < size; ++i) {
      HLS_TRIPS(1, MaxSize)
      HLS_PIPELINE(1)
      const AsymmetricScale s = scales.read();
      HLS_UNROLL_AHEAD
      for (uint32_t lane = 0; lane < kFloatsPerWord; ++lane) {
        HLS_UNROLL
        if (i % kFloatsPerWord == lane) scale[lane][i / kFloatsPerWord] = s;
      }
    }
  }
};

// Sends rows on, and behind the last of them the scale of each channel, twice.
//   Scheme   of the numbers
//   MaxSize  largest row; at run time at least 4 words, for a comparison between rows
// Cycles: rows * ceil(size / 16) + size. Memory: 2 * MaxSize floats.
template <typename Scheme, uint32_t MaxSize>
void find_channel_scales(uint32_t rows, uint32_t size, Stream<Word>& in, Stream<Word>& kept,
                         Stream<AsymmetricScale>& scales, Stream<AsymmetricScale>& out_scales) {
  const uint32_t words = float_words(size);
  FloatRange range[kFloatsPerWord][float_words(MaxSize)];
  HLS_PARTITION(range, 1)
  uint32_t w = 0;
  for (uint32_t i = 0; i < rows * words; ++i) {
    HLS_TRIPS(1, 1 << 18)
    HLS_PIPELINE(1)
    HLS_DEPTH(1)
    const Word word = in.read();
    kept.write(word);
    HLS_UNROLL_AHEAD
    for (uint32_t lane = 0; lane < kFloatsPerWord; ++lane) {
      HLS_UNROLL
      const float x = get_float(word, lane);
      const FloatRange before = i < words ? empty_range() : range[lane][w];
      range[lane][w] = FloatRange{min_of(x, before.lowest), max_of(x, before.highest)};
    }
    w = w + 1 == words ? 0 : w + 1;
  }
  for (uint32_t i = 0; i < size; ++i) {
    HLS_TRIPS(1, MaxSize)
    HLS_PIPELINE(1)
    HLS_DEPTH(latency::chip_read + latency::add + 2 * latency::divide)
    const AsymmetricScale scale = Scheme::scale_of(range[i % kFloatsPerWord][i / kFloatsPerWord]);
    scales.write(scale);
    out_scales.write(scale);
  }
}

// Rounds rows by the scales of their channels, which come first: the static quantiser.
//   Scheme   of the numbers
//   MaxSize  largest row
// Cycles: size + rows * ceil(size / 16). Memory: 3 * MaxSize floats. DSP: as round_spans.
template <typename Scheme, uint32_t MaxSize>
void round_channels(uint32_t rows, uint32_t size, Stream<AsymmetricScale>& scales, Stream<Word>& in,
                    Stream<Word>& out) {
  constexpr uint32_t kParts = kBytesPerWord / kFloatsPerWord;
  const uint32_t words = float_words(size);
  ChannelScales<MaxSize> channel;
  HLS_PARTITION(channel.scale, 1)
  channel.read(size, scales);
  Word packed = zero_word();
  uint32_t w = 0;
  for (uint32_t i = 0; i < rows * words; ++i) {
    HLS_TRIPS(1, 1 << 18)
    HLS_PIPELINE(1)
    HLS_DEPTH(latency::chip_read + latency::add + latency::multiply + latency::to_int)
    const Word word = in.read();
    const uint32_t part = w % kParts;
    if (part == 0) packed = zero_word();
    HLS_UNROLL_AHEAD
    for (uint32_t lane = 0; lane < kFloatsPerWord; ++lane) {
      HLS_UNROLL
      if (w * kFloatsPerWord + lane >= size) continue;
      const uint32_t q = Scheme::encode(get_float(word, lane), channel.scale[lane][w]);
      set_byte(packed, part * kFloatsPerWord + lane, q);
    }
    const bool last = w + 1 == words;
    if (part + 1 == kParts || last) out.write(packed);
    w = last ? 0 : w + 1;
  }
}

// The dynamic quantiser by channel.
//   Scheme   of the numbers
//   MaxRows, MaxSize  most rows, which are kept until the last has come, and largest row
// Cycles: 2 * rows * ceil(size / 16) + size. Memory: MaxRows * MaxSize floats, and 5 * MaxSize.
template <typename Scheme, uint32_t MaxRows, uint32_t MaxSize>
void quantize_channels(uint32_t rows, uint32_t size, Stream<Word>& in,
                       Stream<AsymmetricScale>& scales, Stream<Word>& out) {
  HLS_DATAFLOW("quantize_channels");
  Fifo<Word, static_cast<int>(MaxRows * float_words(MaxSize))> kept("kept");
  Fifo<AsymmetricScale, 4> found("found");
  HLS_TASK(find_channel_scales<Scheme, MaxSize>(rows, size, in, kept, found, scales));
  HLS_TASK(round_channels<Scheme, MaxSize>(rows, size, found, kept, out));
  HLS_DATAFLOW_END();
}

// Numbers back to floats, by the scales of their channels, which come first.
//   Scheme   of the numbers
//   MaxSize  largest row
// Cycles: size + rows * ceil(size / 16). Memory: 3 * MaxSize floats. DSP: as dequantize_spans.
template <typename Scheme, uint32_t MaxSize>
void dequantize_channels(uint32_t rows, uint32_t size, Stream<AsymmetricScale>& scales,
                         Stream<Word>& in, Stream<Word>& out) {
  constexpr uint32_t kParts = kBytesPerWord / kFloatsPerWord;
  const uint32_t words = float_words(size);
  ChannelScales<MaxSize> channel;
  HLS_PARTITION(channel.scale, 1)
  channel.read(size, scales);
  Word packed = zero_word();
  uint32_t w = 0;
  for (uint32_t i = 0; i < rows * words; ++i) {
    HLS_TRIPS(1, 1 << 18)
    HLS_PIPELINE(1)
    HLS_DEPTH(latency::chip_read + latency::from_int + latency::multiply + latency::add)
    const uint32_t part = w % kParts;
    if (part == 0) packed = in.read();
    Word word = zero_word();
    HLS_UNROLL_AHEAD
    for (uint32_t lane = 0; lane < kFloatsPerWord; ++lane) {
      HLS_UNROLL
      if (w * kFloatsPerWord + lane >= size) continue;
      const uint32_t byte = get_byte(packed, part * kFloatsPerWord + lane);
      set_float(word, lane, Scheme::decode(byte, channel.scale[lane][w]));
    }
    out.write(word);
    w = w + 1 == words ? 0 : w + 1;
  }
}

}  // namespace kernels
}  // namespace flexllm
