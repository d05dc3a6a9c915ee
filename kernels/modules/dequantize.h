// From the integer sums of all arrays to the floats of the rows, in the order of the tiles.
#pragma once

#include "kernels/hls/latency.h"
#include "kernels/modules/types.h"

namespace flexllm {
namespace kernels {

constexpr uint32_t kParameterHalves = 6;  // two words each of scales, weight sums and bias

// The parameters of the tiles of a pass, an array's behind the other.
//   K     shape
// Cycles: arrays * halves.
template <typename K, typename Parameters>
inline void read_parameters(uint32_t arrays, uint32_t halves,
                            Parameters (&parameters)[K::weight_ports][K::arrays / K::weight_ports],
                            float (&parameter)[K::arrays][kParameterHalves][kFloatsPerWord]) {
  uint32_t from = 0;
  uint32_t half = 0;
  while (from < arrays) {
    HLS_TRIPS(4, K::arrays * kParameterHalves)
    HLS_PIPELINE(1)
    Word word = zero_word();
    HLS_UNROLL_AHEAD
    for (uint32_t array = 0; array < K::arrays; ++array) {
      HLS_UNROLL
      if (array == from) {
        word = parameters[array % K::weight_ports][array / K::weight_ports].read();
      }
    }
    HLS_UNROLL_AHEAD
    for (uint32_t i = 0; i < kFloatsPerWord; ++i) {
      HLS_UNROLL
      parameter[from][half][i] = get_float(word, i);
    }
    if (++half == halves) {
      half = 0;
      ++from;
    }
  }
}

// Takes a row of every array in turn, in the order of TileOrder, in which every module behind it
// sees the matrix.
//   K           shape; `output_parallel` of the 32 outputs of a tile are computed per cycle
//   parameters  of array a: those of port a mod ports, a / ports among its arrays
// Cycles: for each panel its rows; then per pass over the arrays 4 for each tile (6 with a bias) to
// read its parameters, and rows * 32 / output_parallel for each tile. DSP: output_parallel times 3
// multipliers, 2 adders and a conversion.
template <typename K, typename Parameters, typename Sums>
void dequantize(const Stage stage,
                Parameters (&parameters)[K::weight_ports][K::arrays / K::weight_ports],
                Sums (&sums)[K::arrays], Stream<AsymmetricScale>& scales, Stream<TileValues>& out) {
  static_assert(kTileRows % K::output_parallel == 0, "the outputs of a tile in whole steps");
  AsymmetricScale scale[Panels<K>::rows];
  float parameter[K::arrays][kParameterHalves][kFloatsPerWord];
  HLS_PARTITION(parameter, 2)
  HLS_PARTITION(parameter, 3)
  const bool biased = Precision::decode(stage.precision).bias;
  const uint32_t halves = biased ? kParameterHalves : kParameterHalves - 2;
  for (uint32_t panel = 0; panel < stage.rows; panel += Panels<K>::rows) {
    HLS_TRIPS(1, divide_up(K::rows, Panels<K>::rows))
    const uint32_t rows = stage.rows_of_panel(panel, Panels<K>::rows);
    for (uint32_t row = 0; row < rows; ++row) {
      HLS_TRIPS(1, Panels<K>::rows)
      HLS_PIPELINE(1)
      scale[row] = scales.read();
    }
    for (uint32_t pass = 0; pass < stage.tiles; pass += K::arrays) {
      HLS_TRIPS(1, divide_up(row_tiles(K::vocab), K::arrays))
      const uint32_t left = stage.tiles - pass;
      const uint32_t arrays = left < K::arrays ? left : K::arrays;

      read_parameters<K>(arrays, halves, parameters, parameter);
      uint32_t row = 0;  // of the panel
      uint32_t array = 0;
      while (row < rows) {
        HLS_TRIPS(1, Panels<K>::rows * K::arrays)
        HLS_PIPELINE(kTileRows / K::output_parallel)
        HLS_DEPTH(latency::from_int + latency::multiply + 2 * latency::add)
        TileSums tile = {};
        HLS_UNROLL_AHEAD
        for (uint32_t a = 0; a < K::arrays; ++a) {
          HLS_UNROLL
          if (a == array) tile = sums[a].read();
        }
        const AsymmetricScale s = scale[row];
        TileValues values;
        HLS_UNROLL_AHEAD
        for (uint32_t r = 0; r < kTileRows; ++r) {
          HLS_UNROLL
          const float(&own)[kParameterHalves][kFloatsPerWord] = parameter[array];
          const uint32_t lane = r % kFloatsPerWord;
          const float y =
              dequantize_linear(static_cast<int64_t>(tile.value[r]), s,
                                own[r / kFloatsPerWord][lane], own[2 + r / kFloatsPerWord][lane]);
          values.value[r] = biased ? y + own[4 + r / kFloatsPerWord][lane] : y;
        }
        out.write(values);
        if (++array < arrays) continue;
        array = 0;
        ++row;
      }
    }
  }
}

}  // namespace kernels
}  // namespace flexllm
