// Softmax of rows that pass by as words of 16 floats, with the functions of docs/numerics.md; three
// rows are under way at a time. For accelerators composed from this library: attention of ours has
// its softmax in softmax.h.
#pragma once

#include "kernels/hls/latency.h"
#include "kernels/modules/quantize.h"
#include "kernels/modules/vector_sum.h"

namespace flexllm {
namespace kernels {

// Sends rows on, and behind each its maximum. NaN is in no maximum.
// Cycles: rows * ceil(size / 16).
inline void find_maxima(uint32_t rows, uint32_t size, Stream<Word>& in, Stream<Word>& kept,
                        Stream<float>& maxima) {
  constexpr uint32_t kAges = 4;  // a comparison has the cycles of four words
  const uint32_t words = float_words(size);
  float largest[kAges];
  HLS_PARTITION(largest, 1)
  HLS_UNROLL_AHEAD
  for (uint32_t age = 0; age < kAges; ++age) {
    HLS_UNROLL
    largest[age] = -kInfinity;
  }
  uint32_t w = 0;
  for (uint32_t i = 0; i < rows * words; ++i) {
    HLS_TRIPS(1, 1 << 18)
    HLS_PIPELINE(1)
    HLS_DEPTH(1)
    const Word word = in.read();
    kept.write(word);
    const float here = range_of_word(word, size - w * kFloatsPerWord).highest;
    const float joined = max_of(here, w < kAges ? -kInfinity : largest[0]);
    HLS_UNROLL_AHEAD
    for (uint32_t age = 0; age + 1 < kAges; ++age) {
      HLS_UNROLL
      largest[age] = w == 0 ? -kInfinity : largest[age + 1];
    }
    largest[kAges - 1] = joined;
    const bool last = w + 1 == words;
    HLS_DEPTH(latency::maximum)
    if (last) {
      maxima.write(max_of(max_of(largest[0], largest[1]), max_of(largest[2], largest[3])));
    }
    w = last ? 0 : w + 1;
  }
}

// exp(x - maximum) of each element, 0 behind a row's end.
//   Lanes  exponentials a cycle: 1, 2, 4, 8 or 16
// Cycles: 16 / Lanes * rows * ceil(size / 16). DSP: 43 * Lanes.
template <uint32_t Lanes>
void exponentiate_rows(uint32_t rows, uint32_t size, Stream<float>& maxima, Stream<Word>& in,
                       Stream<Word>& out) {
  static_assert(Lanes > 0 && kFloatsPerWord % Lanes == 0, "a word is whole steps");
  const uint32_t words = float_words(size);
  float maximum = 0.0f;
  uint32_t w = 0;
  for (uint32_t i = 0; i < rows * words; ++i) {
    HLS_TRIPS(1, 1 << 18)
    HLS_PIPELINE(kFloatsPerWord / Lanes)
    HLS_DEPTH(latency::add + latency::exp)
    if (w == 0) maximum = maxima.read();
    const Word word = in.read();
    Word exponentials = zero_word();
    HLS_UNROLL_AHEAD
    for (uint32_t lane = 0; lane < kFloatsPerWord; ++lane) {
      HLS_UNROLL
      const float e = exp_nonpositive(get_float(word, lane) - maximum);
      if (w * kFloatsPerWord + lane < size) set_float(exponentials, lane, e);
    }
    out.write(exponentials);
    w = w + 1 == words ? 0 : w + 1;
  }
}

// Sends rows on, and of each the final partial sums.
//   Interval  cycles a word; 16 / Interval adders. Four words take as long as an addition.
// Cycles: Interval * rows * ceil(size / 16). DSP: 32 / Interval.
template <uint32_t Interval>
void sum_rows(uint32_t rows, uint32_t size, Stream<Word>& in, Stream<Word>& kept,
              Stream<Word>& partials) {
  static_assert(kPartialWords * Interval >= latency::add, "a sum is ready when it goes on");
  const uint32_t words = float_words(size);
  PartialSums sums = {};
  HLS_PARTITION(sums.value, 0)
  uint32_t w = 0;
  for (uint32_t i = 0; i < rows * words; ++i) {
    HLS_TRIPS(1, 1 << 18)
    HLS_PIPELINE(Interval)
    HLS_DEPTH(1)
    const Word word = in.read();
    kept.write(word);
    float terms[kFloatsPerWord];
    HLS_PARTITION(terms, 1)
    HLS_UNROLL_AHEAD
    for (uint32_t lane = 0; lane < kFloatsPerWord; ++lane) {
      HLS_UNROLL
      terms[lane] = get_float(word, lane);
    }
    HLS_DEPTH(latency::add)
    const Word sum = sums.add(w, size, terms);
    if (w + kPartialWords >= words) partials.write(sum);
    w = w + 1 == words ? 0 : w + 1;
  }
}

// 1 / vsum of each row. Cycles: 16 a row. DSP: 8.
inline void invert_sums(uint32_t rows, uint32_t size, Stream<Word>& partials,
                        Stream<float>& inverses) {
  const uint32_t words = float_words(size);
  for (uint32_t i = 0; i < rows; ++i) {
    HLS_TRIPS(1, 1 << 14)
    HLS_PIPELINE(16)
    HLS_DEPTH(latency::fold + latency::divide)
    inverses.write(1.0f / fold_partial_words(words, partials));
  }
}

// Multiplies each row by its factor. Cycles: rows * ceil(size / 16). DSP: 48.
inline void multiply_rows(uint32_t rows, uint32_t size, Stream<float>& factors, Stream<Word>& in,
                          Stream<Word>& out) {
  const uint32_t words = float_words(size);
  float factor = 0.0f;
  uint32_t w = 0;
  for (uint32_t i = 0; i < rows * words; ++i) {
    HLS_TRIPS(1, 1 << 18)
    HLS_PIPELINE(1)
    HLS_DEPTH(latency::multiply)
    if (w == 0) factor = factors.read();
    const Word word = in.read();
    Word product = zero_word();
    HLS_UNROLL_AHEAD
    for (uint32_t lane = 0; lane < kFloatsPerWord; ++lane) {
      HLS_UNROLL
      set_float(product, lane, get_float(word, lane) * factor);
    }
    out.write(product);
    w = w + 1 == words ? 0 : w + 1;
  }
}

// e * levels rounded to 0..levels, each in a lane, and behind each row their exact sum.
// Cycles: rows * ceil(size / 16). DSP: 48, and 32 to round.
inline void count_levels(uint32_t rows, uint32_t size, uint32_t levels, Stream<Word>& in,
                         Stream<Word>& out, Stream<Accumulator>& sums) {
  const uint32_t words = float_words(size);
  const float top = static_cast<float>(levels);
  Accumulator sum = 0;
  uint32_t w = 0;
  for (uint32_t i = 0; i < rows * words; ++i) {
    HLS_TRIPS(1, 1 << 18)
    HLS_PIPELINE(1)
    HLS_DEPTH(latency::multiply + 2 * latency::compare + latency::to_int)
    const Word word = in.read();
    Word counted = zero_word();
    uint32_t of_word = 0;
    HLS_UNROLL_AHEAD
    for (uint32_t lane = 0; lane < kFloatsPerWord; ++lane) {
      HLS_UNROLL
      const uint32_t level = quantize_unsigned(get_float(word, lane) * top, top);
      set_lane(counted, lane, level);
      of_word += level;
    }
    out.write(counted);
    sum = (w == 0 ? Accumulator(0) : sum) + Accumulator(of_word);
    const bool last = w + 1 == words;
    if (last) sums.write(sum);
    w = last ? 0 : w + 1;
  }
}

// Softmax in floats: e * (1 / vsum(e)), e = exp(x - maximum).
//   MaxSize  largest row
//   Lanes    exponentials a cycle: 1, 2, 4 or 8
// Cycles: 16 / Lanes * rows * ceil(size / 16), at least 16 a row; once a row more at each end.
// Memory: two rows of MaxSize floats. DSP: 45 * Lanes + 56.
template <uint32_t MaxSize, uint32_t Lanes>
void softmax_rows(uint32_t rows, uint32_t size, Stream<Word>& in, Stream<Word>& out) {
  constexpr uint32_t kDelay = latency::add + latency::fold + latency::divide;
  HLS_DATAFLOW("softmax_rows");
  Fifo<Word, static_cast<int>(float_words(MaxSize) + latency::maximum)> kept("kept");
  Fifo<float, 4> maxima("maxima");
  Fifo<Word, 16> exponentials("exponentials");
  Fifo<Word, static_cast<int>(float_words(MaxSize) + kDelay)> summed("summed");
  Fifo<Word, 2 * kPartialWords> partials("partials");
  Fifo<float, 8> inverses("inverses");
  HLS_TASK(find_maxima(rows, size, in, kept, maxima));
  HLS_TASK(exponentiate_rows<Lanes>(rows, size, maxima, kept, exponentials));
  HLS_TASK(sum_rows<kFloatsPerWord / Lanes>(rows, size, exponentials, summed, partials));
  HLS_TASK(invert_sums(rows, size, partials, inverses));
  HLS_TASK(multiply_rows(rows, size, inverses, summed, out));
  HLS_DATAFLOW_END();
}

// Softmax in integers (docs/numerics.md, section 5): d = quantize(e * levels) of each element and
// their exact sum, so that the probabilities are d / sum.
//   MaxSize  largest row
//   Lanes    exponentials a cycle: 1, 2, 4, 8 or 16
// Cycles: 16 / Lanes * rows * ceil(size / 16), and once a row more.
// Memory: a row of MaxSize floats. DSP: 43 * Lanes + 80.
template <uint32_t MaxSize, uint32_t Lanes>
void softmax_levels(uint32_t rows, uint32_t size, uint32_t levels, Stream<Word>& in,
                    Stream<Word>& out, Stream<Accumulator>& sums) {
  HLS_DATAFLOW("softmax_levels");
  Fifo<Word, static_cast<int>(float_words(MaxSize) + latency::maximum)> kept("kept");
  Fifo<float, 4> maxima("maxima");
  Fifo<Word, 16> exponentials("exponentials");
  HLS_TASK(find_maxima(rows, size, in, kept, maxima));
  HLS_TASK(exponentiate_rows<Lanes>(rows, size, maxima, kept, exponentials));
  HLS_TASK(count_levels(rows, size, levels, exponentials, out, sums));
  HLS_DATAFLOW_END();
}

}  // namespace kernels
}  // namespace flexllm
