// What happens to the output tiles of o, down, gate_up and lm_head on their way to scratch.
#pragma once

#include "kernels/modules/types.h"

namespace flexllm {
namespace kernels {

// x + y for every tile (o, down).
//   K     shape
// Cycles: two per tile and row.
template <typename K>
void add_residual(const Stage stage, Stream<TileValues>& tiles, Stream<Word>& residuals,
                  Stream<Store>& out) {
  if (!stage.residual_added()) return;
  const uint32_t words = stage.result_words();
  TileOrder at = TileOrder::first();
  for (uint32_t i = 0; i < stage.tiles * stage.rows; ++i) {
    HLS_TRIPS(1, row_tiles(K::hidden) * K::rows)
    const TileValues tile = tiles.read();
    for (uint32_t half = 0; half < 2 && 2 * at.tile + half < words; ++half) {
      HLS_PIPELINE(1)
      const Word y = half_of(tile, half);
      const Word x = residuals.read();
      Word sum = zero_word();
      HLS_UNROLL_AHEAD
      for (uint32_t lane = 0; lane < kFloatsPerWord; ++lane) {
        HLS_UNROLL
        set_float(sum, lane, get_float(x, lane) + get_float(y, lane));
      }
      out.write(Store{stage.result + at.row * words + 2 * at.tile + half, false, sum});
    }
    at.advance<K::arrays>(stage);
  }
  out.write(end_of_stores());
}

// silu(gate) * up: keeps a row's gate tile until its up tile comes, which is the next of the row.
//   K     shape; rows * 32 floats on chip
// Cycles: one per gate tile, two per up tile and row.
template <typename K>
void gate_with_silu(const Stage stage, Stream<TileValues>& tiles, Stream<Store>& out) {
  if (stage.kind != kGateUp) return;
  const uint32_t words = stage.result_words();
  TileValues gate[K::rows];
  TileOrder at = TileOrder::first();
  for (uint32_t i = 0; i < stage.tiles * stage.rows; ++i) {
    HLS_TRIPS(1, 2 * row_tiles(K::ffn) * K::rows)
    const TileValues tile = tiles.read();
    if (at.tile % 2 == 0) {
      gate[at.row] = tile;
    } else {
      TileValues y;
      HLS_UNROLL_AHEAD
      for (uint32_t r = 0; r < kTileRows; ++r) {
        HLS_UNROLL
        y.value[r] = silu(gate[at.row].value[r]) * tile.value[r];
      }
      for (uint32_t half = 0; half < 2; ++half) {
        HLS_PIPELINE(1)
        const uint32_t word = at.tile - 1 + half;  // tiles 2 i and 2 i + 1 make words 2 i, 2 i + 1
        if (word < words) {
          out.write(Store{stage.result + at.row * words + word, false, half_of(y, half)});
        }
      }
    }
    at.advance<K::arrays>(stage);
  }
  out.write(end_of_stores());
}

// Logits of each row to its slot.
//   K     shape
// Cycles: two per tile and row.
template <typename K>
void store_logits(const Stage stage, Stream<RowInfo>& rows, Stream<TileValues>& tiles,
                  Stream<Store>& out) {
  if (stage.kind != kLmHead) return;
  uint32_t slot[K::rows];
  for (uint32_t i = 0; i < stage.rows; ++i) {
    HLS_TRIPS(1, K::rows)
    HLS_PIPELINE(1)
    slot[i] = rows.read().logits_slot;
  }
  const uint32_t words = stage.result_words();
  TileOrder at = TileOrder::first();
  for (uint32_t i = 0; i < stage.tiles * stage.rows; ++i) {
    HLS_TRIPS(1, row_tiles(K::vocab) * K::rows)
    const TileValues tile = tiles.read();
    for (uint32_t half = 0; half < 2; ++half) {
      HLS_PIPELINE(1)
      const uint32_t word = 2 * at.tile + half;
      out.write(Store{stage.result + slot[at.row] * words + word, false, half_of(tile, half)});
    }
    at.advance<K::arrays>(stage);
  }
  out.write(end_of_stores());
}

}  // namespace kernels
}  // namespace flexllm
