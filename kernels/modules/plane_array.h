// The integer array of the linear layers: weight planes times activation planes, exact
// (docs/numerics.md, section 4).
#pragma once

#include "kernels/modules/types.h"

namespace flexllm {
namespace kernels {

// Products of 4 inputs, 32 output rows and 16 rows of the launch, added up over a group.
struct GroupSums {
  int32_t value[kBlockRows][kTileRows];  // below 64 * 255 * 15 < 2^18
};

// One cycle of the array: token_parallel x row_parallel sums of input_parallel products.
template <typename A>
inline void multiply_lanes(const uint16_t w[kInputsPerWord][kTileRows], const Word& inputs,
                           uint32_t rows, uint32_t plane, uint32_t t0, uint32_t r0, uint32_t i0,
                           GroupSums& sums) {
  HLS_UNROLL_AHEAD
  for (uint32_t t = 0; t < A::token_parallel; ++t) {
    HLS_UNROLL
    if (t0 + t >= rows) continue;
    const uint32_t lane = get_lane(inputs, t0 + t) >> (4 * plane);
    HLS_UNROLL_AHEAD
    for (uint32_t r = 0; r < A::row_parallel; ++r) {
      HLS_UNROLL
      if (r0 + r >= kTileRows) continue;
      uint16_t products = 0;
      HLS_UNROLL_AHEAD
      for (uint32_t i = 0; i < A::input_parallel; ++i) {
        HLS_UNROLL
        const uint16_t q = static_cast<uint16_t>((lane >> (8 * (i0 + i))) & 15u);
        products = static_cast<uint16_t>(products + w[i0 + i][r0 + r] * q);
      }
      sums.value[t0 + t][r0 + r] += static_cast<int32_t>(products) << (4 * plane);
    }
  }
}

// Adds one plane word times one activation word of `rows` rows: `planes` passes of 4-bit by 4-bit
// products.
//   A     array: tokens, rows and inputs that are multiplied in one cycle
// Cycles: planes * ceil(rows / token_parallel) * ceil(32 / row_parallel) * (4 / input_parallel).
template <typename A>
inline void multiply_word(const Word& weights, const Word& inputs, uint32_t rows, uint32_t planes,
                          GroupSums& sums) {
  static_assert(kInputsPerWord % A::input_parallel == 0, "inputs of a word in whole steps");
  uint16_t w[kInputsPerWord][kTileRows];
  HLS_PARTITION(w, 0)
  HLS_UNROLL_AHEAD
  for (uint32_t r = 0; r < kTileRows / 2; ++r) {
    HLS_UNROLL
    const uint32_t lane = get_lane(weights, r);
    HLS_UNROLL_AHEAD
    for (uint32_t i = 0; i < kInputsPerWord; ++i) {
      HLS_UNROLL
      const uint32_t byte = (lane >> (8 * i)) & 255u;
      w[i][r] = static_cast<uint16_t>(byte & 15u);
      w[i][r + kTileRows / 2] = static_cast<uint16_t>(byte >> 4);
    }
  }
  for (uint32_t plane = 0; plane < planes; ++plane) {
    HLS_TRIPS(1, 2)
    for (uint32_t t0 = 0; t0 < rows; t0 += A::token_parallel) {
      HLS_TRIPS(1, kBlockRows / A::token_parallel)
      for (uint32_t r0 = 0; r0 < kTileRows; r0 += A::row_parallel) {
        for (uint32_t i0 = 0; i0 < kInputsPerWord; i0 += A::input_parallel) {
          HLS_PIPELINE(1)
          multiply_lanes<A>(w, inputs, rows, plane, t0, r0, i0, sums);
        }
      }
    }
  }
}

// Folds a group into the totals: times its multiplier, plane by plane; in the first plane the
// offset of the unsigned weights is taken off with the sums of q.
inline void fold_group(const GroupSums& sums, const Word& q_sums, const uint8_t* multipliers,
                       uint32_t rows, uint32_t plane, int32_t offset,
                       Accumulator totals[kBlockRows][kTileRows]) {
  for (uint32_t t = 0; t < rows; ++t) {
    HLS_TRIPS(1, kBlockRows)
    const int32_t correction = plane == 0 ? offset * static_cast<int32_t>(get_lane(q_sums, t)) : 0;
    HLS_UNROLL_AHEAD
    for (uint32_t r = 0; r < kTileRows; ++r) {
      HLS_UNROLL
      const int64_t group = (static_cast<int64_t>(sums.value[t][r]) << (4 * plane)) - correction;
      totals[t][r] += static_cast<int64_t>(multipliers[r]) * group;
    }
  }
}

// One array: multiplies the tiles of a port by the blocks of rows that come in step.
//   K          shape
//   A          array
//   MaxInputs  largest number of inputs of a matrix
// Cycles per tile and block: weight planes * inputs / 4 * those of multiply_word, plus a fold of
// `rows` per group that runs beside the next group.
template <typename K, typename A, uint32_t MaxInputs>
void multiply_tiles(uint32_t port, const Stage stage, Stream<Word>& weights,
                    Stream<Word>& activations, Stream<TileSums>& out) {
  constexpr uint32_t kGroups = divide_up(MaxInputs, kGroupInputs);
  static_assert(static_cast<uint64_t>(MaxInputs) * 255 * 255 * kMaxMultiplier < (1ull << 47),
                "an accumulator of 48 bits holds the sum");
  uint8_t multipliers[divide_up(kGroups, 2) * 2][kTileRows];
  const Precision precision = Precision::decode(stage.precision);
  const uint32_t words = stage.inputs / kInputsPerWord;
  const uint32_t multiplier_words =
      precision.grouped ? divide_up(divide_up(stage.inputs, kGroupInputs), 2) : 0;
  for (uint32_t g = 0; g < kGroups; ++g) {
    HLS_PIPELINE(1)
    HLS_UNROLL_AHEAD
    for (uint32_t r = 0; r < kTileRows; ++r) {
      HLS_UNROLL
      multipliers[g][r] = 1;
    }
  }
  for (uint32_t tile = port; tile < stage.tiles; tile += K::weight_ports) {
    HLS_TRIPS(1, row_tiles(K::vocab) / K::weight_ports)
    for (uint32_t block = 0; block < stage.blocks(); ++block) {
      HLS_TRIPS(1, divide_up(K::rows, kBlockRows))
      for (uint32_t w = 0; w < multiplier_words; ++w) {
        HLS_TRIPS(0, kGroups / 2)
        HLS_PIPELINE(1)
        const Word word = weights.read();
        HLS_UNROLL_AHEAD
        for (uint32_t i = 0; i < kBytesPerWord; ++i) {
          HLS_UNROLL
          multipliers[2 * w + i / kTileRows][i % kTileRows] =
              static_cast<uint8_t>(get_byte(word, i));
        }
      }
      const uint32_t rows = stage.rows_of_block(block);
      Accumulator totals[kBlockRows][kTileRows];
      GroupSums sums;
      HLS_PARTITION(sums.value, 0)
      for (uint32_t t = 0; t < kBlockRows; ++t) {
        HLS_PIPELINE(1)
        HLS_UNROLL_AHEAD
        for (uint32_t r = 0; r < kTileRows; ++r) {
          HLS_UNROLL
          totals[t][r] = 0;
          sums.value[t][r] = 0;
        }
      }
      for (uint32_t plane = 0; plane < precision.weight_planes; ++plane) {
        HLS_TRIPS(1, 2)
        for (uint32_t k = 0; k < words; ++k) {
          HLS_TRIPS(1, MaxInputs / kInputsPerWord)
          const Word weight = weights.read();
          const Word input = activations.read();
          multiply_word<A>(weight, input, rows, precision.activation_planes, sums);
          if (k % kGroupWords == kGroupWords - 1 || k + 1 == words) {
            const Word q_sums = plane == 0 ? activations.read() : zero_word();
            fold_group(sums, q_sums, multipliers[k / kGroupWords], rows, plane,
                       precision.weight_offset(), totals);
            for (uint32_t t = 0; t < kBlockRows; ++t) {
              HLS_PIPELINE(1)
              HLS_UNROLL_AHEAD
              for (uint32_t r = 0; r < kTileRows; ++r) {
                HLS_UNROLL
                sums.value[t][r] = 0;
              }
            }
          }
        }
      }
      for (uint32_t t = 0; t < rows; ++t) {
        HLS_TRIPS(1, kBlockRows)
        HLS_PIPELINE(1)
        TileSums result;
        HLS_UNROLL_AHEAD
        for (uint32_t r = 0; r < kTileRows; ++r) {
          HLS_UNROLL
          result.value[r] = totals[t][r];
        }
        out.write(result);
      }
    }
  }
}

}  // namespace kernels
}  // namespace flexllm
