// From the integer sums of all ports to the floats of the rows, in the order of the tiles.
#pragma once

#include "kernels/modules/types.h"

namespace flexllm {
namespace kernels {

// Two words of a tile's parameters: one float per output row.
inline void read_tile_floats(Stream<Word>& in, float value[kTileRows]) {
  for (uint32_t half = 0; half < 2; ++half) {
    const Word word = in.read();
    HLS_UNROLL_AHEAD
    for (uint32_t i = 0; i < kFloatsPerWord; ++i) {
      HLS_UNROLL
      value[half * kFloatsPerWord + i] = get_float(word, i);
    }
  }
}

// Takes the tiles of the ports in turn, in the order of TileOrder, in which every module behind it
// sees the matrix.
//   K     shape
// Cycles: one per tile and row, plus the words of the tiles' parameters. One dequantiser serves all
// ports: an array needs at least inputs / 4 cycles for what it hands over in one.
template <typename K, typename Parameters, typename Sums>
void dequantize(const Stage stage, Parameters (&parameters)[K::weight_ports],
                Sums (&sums)[K::weight_ports], Stream<AsymmetricScale>& scales,
                Stream<TileValues>& out) {
  AsymmetricScale scale[K::rows];
  float weight_scale[K::weight_ports][kTileRows];
  float weight_sum[K::weight_ports][kTileRows];
  float bias[K::weight_ports][kTileRows];
  const bool biased = Precision::decode(stage.precision).bias;
  for (uint32_t row = 0; row < stage.rows; ++row) {
    HLS_TRIPS(1, K::rows)
    HLS_PIPELINE(1)
    scale[row] = scales.read();
  }
  for (uint32_t pass = 0; pass < divide_up(stage.tiles, K::weight_ports); ++pass) {
    HLS_TRIPS(1, row_tiles(K::vocab) / K::weight_ports)
    const uint32_t left = stage.tiles - pass * K::weight_ports;
    for (uint32_t port = 0; port < K::weight_ports && port < left; ++port) {
      read_tile_floats(parameters[port], weight_scale[port]);
      read_tile_floats(parameters[port], weight_sum[port]);
      if (biased) read_tile_floats(parameters[port], bias[port]);
    }
    for (uint32_t block = 0; block < stage.blocks(); ++block) {
      HLS_TRIPS(1, divide_up(K::rows, kBlockRows))
      for (uint32_t port = 0; port < K::weight_ports && port < left; ++port) {
        for (uint32_t i = 0; i < stage.rows_of_block(block); ++i) {
          HLS_TRIPS(1, kBlockRows)
          HLS_PIPELINE(1)
          const TileSums tile = sums[port].read();
          const AsymmetricScale s = scale[block * kBlockRows + i];
          TileValues values;
          HLS_UNROLL_AHEAD
          for (uint32_t r = 0; r < kTileRows; ++r) {
            HLS_UNROLL
            const float y = dequantize_linear(static_cast<int64_t>(tile.value[r]), s,
                                              weight_scale[port][r], weight_sum[port][r]);
            values.value[r] = biased ? y + bias[port][r] : y;
          }
          out.write(values);
        }
      }
    }
  }
}

}  // namespace kernels
}  // namespace flexllm
