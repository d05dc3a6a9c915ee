// Query heads on their way into attention: symmetric INT8 per head (docs/numerics.md, section 5,
// step 4).
#pragma once

#include "kernels/hls/latency.h"
#include "kernels/modules/lanes.h"

namespace flexllm {
namespace kernels {

constexpr uint32_t kHalfFloats = kFloatsPerWord / 2;  // heads are multiples of this

// The larger of two magnitudes as bits, which are ordered as their floats are.
inline uint32_t larger_bits(uint32_t a, uint32_t b) { return a > b ? a : b; }

// Largest magnitude of half a word, as bits; NaN counts as 0.
inline uint32_t largest_magnitude_bits(const Word& word, uint32_t half) {
  uint32_t largest = 0;
  HLS_UNROLL_AHEAD
  for (uint32_t i = 0; i < kHalfFloats; ++i) {
    HLS_UNROLL
    const uint32_t bits = get_lane(word, half * kHalfFloats + i) & 0x7fffffffu;
    largest = larger_bits(largest, bits > 0x7f800000u ? 0u : bits);
  }
  return largest;
}

// Quantises the heads of query rows and sends them to the engine of every port: of each head
// s_q / sqrt(head_dim), and its INT8 words. A row is read into half words, as heads begin and end
// between them, in two banks so that any two neighbours are read at once.
//   K     shape
// Cycles: per row attention / 16 to read it and find the largest magnitudes, heads for the scales,
// heads * ceil(head_dim / 16) to quantise, and the latencies of three loops.
// Memory: heads * head_dim floats. DSP: 17 float multipliers and 16 adders.
template <typename K, typename Words, typename Factors>
void quantize_queries(uint32_t rows, const ModelInfo info, Stream<Word>& in,
                      Words (&words)[K::kv_ports], Factors (&factors)[K::kv_ports]) {
  constexpr uint32_t kBankWords = divide_up(K::heads * K::head_dim, kFloatsPerWord);
  const uint32_t row_words = float_words(info.attention());
  const uint32_t head_halves = info.head_dim / kHalfFloats;
  const uint32_t head_cycles = divide_up(head_halves, 2);
  Word half_words[2][kBankWords];  // a half each, in the low lanes
  HLS_PARTITION(half_words, 1)
  uint32_t largest[K::heads];
  HLS_PARTITION(largest, 1)
  SymmetricScale scale[K::heads];
  float factor[K::heads];
  for (uint32_t row = 0; row < rows; ++row) {
    HLS_TRIPS(1, K::rows)
    uint32_t head = 0;
    uint32_t half = 0;  // of the head
    uint32_t running = 0;
    for (uint32_t w = 0; w < row_words; ++w) {
      HLS_TRIPS(1, kBankWords)
      HLS_PIPELINE(1)
      const Word word = in.read();
      HLS_UNROLL_AHEAD
      for (uint32_t side = 0; side < 2; ++side) {
        HLS_UNROLL
        Word part = zero_word();
        HLS_UNROLL_AHEAD
        for (uint32_t i = 0; i < kHalfFloats; ++i) {
          HLS_UNROLL
          set_lane(part, i, get_lane(word, side * kHalfFloats + i));
        }
        half_words[side][w] = part;
        running = larger_bits(half == 0 ? 0u : running, largest_magnitude_bits(word, side));
        if (++half == head_halves) {
          if (head < info.heads) largest[head] = running;
          half = 0;
          ++head;
        }
      }
    }
    for (head = 0; head < info.heads; ++head) {
      HLS_TRIPS(1, K::heads)
      HLS_PIPELINE(1)
      scale[head] = symmetric_scale(float_of(largest[head]));
      factor[head] = scale[head].scale * info.inv_sqrt_head_dim;
    }
    HLS_LATENCY(2 * latency::divide)
    head = 0;
    uint32_t begin = 0;  // half of the row at which the head begins
    uint32_t at = 0;     // pair of halves of the head
    Word packed = zero_word();
    for (uint32_t i = 0; i < info.heads * head_cycles; ++i) {
      HLS_TRIPS(1, K::heads * divide_up(K::head_dim, kFloatsPerWord))
      HLS_PIPELINE(1)
      HLS_DEPTH(latency::multiply + 2 * latency::compare + latency::add)
      const uint32_t place = (2 * at) % (kBytesPerWord / kHalfFloats);  // of the word
      if (place == 0) packed = zero_word();
      Word side_word[2];
      HLS_UNROLL_AHEAD
      for (uint32_t side = 0; side < 2; ++side) {
        HLS_UNROLL
        const uint32_t first = begin + 2 * at;  // the banks swap where a head begins between them
        const uint32_t word = first / 2 + (side < first % 2 ? 1u : 0u);
        side_word[side] = half_words[side][word < kBankWords ? word : 0u];
      }
      HLS_UNROLL_AHEAD
      for (uint32_t j = 0; j < 2; ++j) {
        HLS_UNROLL
        const Word& part = side_word[(begin + j) % 2];
        HLS_UNROLL_AHEAD
        for (uint32_t lane = 0; lane < kHalfFloats; ++lane) {
          HLS_UNROLL
          const int32_t q = quantize_signed(get_float(part, lane) * scale[head].inverse);
          if (2 * at + j < head_halves) {
            set_byte(packed, (place + j) * kHalfFloats + lane, static_cast<uint32_t>(q));
          }
        }
      }
      const bool last = at + 1 == head_cycles;
      HLS_UNROLL_AHEAD
      for (uint32_t port = 0; port < K::kv_ports; ++port) {
        HLS_UNROLL
        if (at == 0) factors[port].write(factor[head]);
        if (last || place + 2 == kBytesPerWord / kHalfFloats) words[port].write(packed);
      }
      ++at;
      if (last) {
        at = 0;
        begin += head_halves;
        ++head;
      }
    }
  }
}

}  // namespace kernels
}  // namespace flexllm
