// Rotary position embedding of heads that pass by as words of 16 floats (docs/numerics.md, section
// 5, step 2).
#pragma once

#include "kernels/hls/latency.h"
#include "kernels/modules/add_subtract.h"
#include "kernels/modules/types.h"

namespace flexllm {
namespace kernels {

constexpr uint32_t kQuadFloats = 4;
constexpr uint32_t kQuadBanks = kFloatsPerWord / kQuadFloats;

struct Quad {
  float value[kQuadFloats];
};

// Element i of the first half of a vector and element i of its second, four i at a time.
struct QuadPair {
  Quad low;
  Quad high;
};

inline Quad quad_of(const Word& word, uint32_t quad) {
  Quad out;
  HLS_UNROLL_AHEAD
  for (uint32_t i = 0; i < kQuadFloats; ++i) {
    HLS_UNROLL
    out.value[i] = get_float(word, quad * kQuadFloats + i);
  }
  return out;
}

// Vectors kept as halves, in banks of quads: quad k of a half lies in bank k mod 4. Halves are
// whole quads, not whole words, so a word of a vector may hold the end of one and the begin of the
// other; wherever it lies, each bank is written once and read twice.
//   Depth  quads of a bank: of each vector (depth_of) times the number of vectors
template <uint32_t Depth>
struct HalvesMemory {
  Quad low[kQuadBanks][Depth];
  Quad high[kQuadBanks][Depth];

  // Word `w` of the vector of 2 * `quads` quads that begins at `base` in each bank.
  void write(uint32_t base, uint32_t quads, uint32_t w, const Word& word) {
    HLS_UNROLL_AHEAD
    for (uint32_t bank = 0; bank < kQuadBanks; ++bank) {
      HLS_UNROLL
      if (w * kQuadBanks + bank < quads) low[bank][base + w] = quad_of(word, bank);
      const uint32_t place = (bank + quads) % kQuadBanks;  // in the word
      const uint32_t quad = w * kQuadBanks + place;
      if (quad >= quads && quad < 2 * quads) {
        high[bank][base + (quad - quads) / kQuadBanks] = quad_of(word, place);
      }
    }
  }

  // The pairs that the quads of word `w` belong to; behind the vector's end any pair.
  void read(uint32_t base, uint32_t quads, uint32_t w, QuadPair (&out)[kQuadBanks]) const {
    QuadPair first[kQuadBanks];   // of quads in the first half: as they lie in the word
    QuadPair second[kQuadBanks];  // of quads in the second: by bank
    HLS_PARTITION(first, 1)
    HLS_PARTITION(second, 1)
    HLS_UNROLL_AHEAD
    for (uint32_t bank = 0; bank < kQuadBanks; ++bank) {
      HLS_UNROLL
      const uint32_t aligned = w * kQuadBanks + bank < quads ? w : 0;
      first[bank] = QuadPair{low[bank][base + aligned], high[bank][base + aligned]};
      const uint32_t quad = w * kQuadBanks + (bank + quads) % kQuadBanks;
      const uint32_t shifted = quad >= quads && quad < 2 * quads ? (quad - quads) / kQuadBanks : 0;
      second[bank] = QuadPair{low[bank][base + shifted], high[bank][base + shifted]};
    }
    HLS_UNROLL_AHEAD
    for (uint32_t place = 0; place < kQuadBanks; ++place) {
      HLS_UNROLL
      const bool in_first = w * kQuadBanks + place < quads;
      out[place] = in_first ? first[place] : second[(place - quads) % kQuadBanks];
    }
  }
};

constexpr uint32_t halves_depth(uint32_t floats) {
  return divide_up(floats, 2 * kQuadBanks * kQuadFloats);
}

// Rotates heads by the table row of the row that they belong to: the pairs (i, i + head_dim / 2) of
// all heads below `rotated`; the others pass. Tables come first, one a row: cosines, then sines.
// A head leaves while the next is read.
//   MaxRows   most rows
//   MaxDim    largest head_dim, a multiple of 8 at run time; behind the last float come zeros
//   Interval  cycles a word; 32 / Interval multipliers, 16 / Interval adders
// Cycles: rows * ceil(head_dim / 16) for the tables, then Interval * (heads + 1) *
// ceil(head_dim / 16).
// Memory: (MaxRows + 2) * MaxDim floats. DSP: (3 * 32 + 2 * 16) / Interval.
template <uint32_t MaxRows, uint32_t MaxDim, uint32_t Interval>
void apply_rope(uint32_t rows, uint32_t heads, uint32_t head_dim, uint32_t rotated,
                Stream<Word>& tables, Stream<HeadTag>& tags, Stream<Word>& in,
                Stream<HeadTag>& out_tags, Stream<Word>& out) {
  constexpr uint32_t kDepth = halves_depth(MaxDim);
  const uint32_t words = float_words(head_dim);
  const uint32_t quads = head_dim / (2 * kQuadFloats);
  HalvesMemory<MaxRows * kDepth> table;  // cosines low, sines high
  HalvesMemory<2 * kDepth> head;         // one is read, the other written
  HLS_PARTITION(table.low, 1)
  HLS_PARTITION(table.high, 1)
  HLS_PARTITION(head.low, 1)
  HLS_PARTITION(head.high, 1)
  uint32_t row = 0;
  uint32_t w = 0;
  for (uint32_t i = 0; i < rows * words; ++i) {
    HLS_TRIPS(1, MaxRows * float_words(MaxDim))
    HLS_PIPELINE(1)
    table.write(row * kDepth, quads, w, tables.read());
    ++w;
    if (w == words) {
      w = 0;
      ++row;
    }
  }
  HeadTag entering = {0, 0};
  HeadTag leaving = {0, 0};
  uint32_t number = 0;
  for (uint32_t i = 0; i < (heads + 1) * words; ++i) {
    HLS_TRIPS(1, MaxRows * 128 * float_words(MaxDim))
    HLS_PIPELINE(Interval)
    HLS_DEPTH(latency::chip_read + latency::multiply + latency::add)
    const uint32_t read_base = number % 2 == 0 ? 0 : kDepth;
    if (number < heads) {
      if (w == 0) entering = tags.read();
      head.write(read_base, quads, w, in.read());
    }
    if (number > 0) {
      QuadPair x[kQuadBanks];
      QuadPair turn[kQuadBanks];
      HLS_PARTITION(x, 1)
      HLS_PARTITION(turn, 1)
      head.read(kDepth - read_base, quads, w, x);
      table.read(leaving.row * kDepth, quads, w, turn);
      Word word = zero_word();
      HLS_UNROLL_AHEAD
      for (uint32_t lane = 0; lane < kFloatsPerWord; ++lane) {
        HLS_UNROLL
        const uint32_t place = lane / kQuadFloats;
        const uint32_t at = lane % kQuadFloats;
        const bool is_low = w * kQuadBanks + place < quads;
        const float low = x[place].low.value[at];
        const float high = x[place].high.value[at];
        const float own = is_low ? low : high;
        const float by_cosine = own * turn[place].low.value[at];
        const float by_sine = (is_low ? high : low) * turn[place].high.value[at];
        const float turned = add_or_subtract(by_cosine, by_sine, is_low);
        if (w * kQuadBanks + place < 2 * quads) {
          set_float(word, lane, leaving.head < rotated ? turned : own);
        }
      }
      if (w == 0) out_tags.write(leaving);
      out.write(word);
    }
    ++w;
    if (w == words) {
      w = 0;
      ++number;
      leaving = entering;
    }
  }
}

}  // namespace kernels
}  // namespace flexllm
