// What happens to the output tiles of o, down, gate_up and lm_head on their way to scratch. A tile
// of 32 outputs is two words.
#pragma once

#include "kernels/hls/latency.h"
#include "kernels/modules/types.h"

namespace flexllm {
namespace kernels {

// x + y for every tile (o, down).
//   K     shape
// Cycles: two per tile and row. DSP: 2 * 16.
template <typename K>
void add_residual(const Stage stage, Stream<TileValues>& tiles, Stream<Word>& residuals,
                  Stream<Store>& out) {
  if (!stage.residual_added()) return;
  const uint32_t words = stage.result_words();
  TileOrder at = TileOrder::first();
  TileValues tile = {};
  for (uint32_t i = 0; i < 2 * stage.tiles * stage.rows; ++i) {
    HLS_TRIPS(1, 2 * row_tiles(K::hidden) * K::rows)
    HLS_PIPELINE(1)
    HLS_DEPTH(latency::add)
    const uint32_t half = i % 2;
    if (half == 0) tile = tiles.read();
    const uint32_t word = 2 * at.tile + half;
    if (word < words) {
      const Word y = half_of(tile, half);
      const Word x = residuals.read();
      Word sum = zero_word();
      HLS_UNROLL_AHEAD
      for (uint32_t lane = 0; lane < kFloatsPerWord; ++lane) {
        HLS_UNROLL
        set_float(sum, lane, get_float(x, lane) + get_float(y, lane));
      }
      out.write(Store{stage.result + at.row * words + word, false, sum});
    }
    if (half == 1) at.advance<K>(stage);
  }
  out.write(end_of_stores());
}

// From the operand to the result of silu.
constexpr uint32_t kSiluDepth = latency::exp + latency::add + latency::divide + latency::multiply;

// silu(gate) * up: keeps a row's gate tile until its up tile comes, which is the next of the row.
//   K      shape
//   Lanes  outputs a cycle: 1, 2, 4, 8 or 16
// Cycles: 1 + 32 / Lanes for a gate tile and its up tile.
// Memory: panel rows * 32 floats. DSP: 55 * Lanes, and a divider each.
template <typename K, uint32_t Lanes = 4>
void gate_with_silu(const Stage stage, Stream<TileValues>& tiles, Stream<Store>& out) {
  static_assert(Lanes > 0 && kFloatsPerWord % Lanes == 0, "a word is whole steps");
  if (stage.kind != kGateUp) return;
  constexpr uint32_t kSteps = kTileRows / Lanes;
  constexpr uint32_t kStepsOfWord = kFloatsPerWord / Lanes;
  const uint32_t words = stage.result_words();
  TileValues gates[Panels<K>::rows];
  TileOrder at = TileOrder::first();
  TileValues gate = {};
  TileValues up = {};
  Word word = zero_word();
  uint32_t step = 0;  // of the up tile
  const uint32_t count = stage.tiles * stage.rows;
  for (uint32_t done = 0; done < count;) {
    HLS_TRIPS(1, (1 + kSteps) * row_tiles(K::ffn) * K::rows)
    HLS_PIPELINE(1)
    HLS_DEPTH(kSiluDepth + latency::multiply)
    bool last = true;
    if (at.tile % 2 == 0) {
      gates[at.panel_row()] = tiles.read();
    } else {
      if (step == 0) {
        gate = gates[at.panel_row()];
        up = tiles.read();
      }
      if (step % kStepsOfWord == 0) word = zero_word();
      HLS_UNROLL_AHEAD
      for (uint32_t lane = 0; lane < Lanes; ++lane) {
        HLS_UNROLL
        const uint32_t output = step * Lanes + lane;
        const float y = silu(gate.value[output]) * up.value[output];
        set_float(word, output % kFloatsPerWord, y);
      }
      const uint32_t number = at.tile - 1 + step / kStepsOfWord;  // tiles 2 i, 2 i + 1: words
      if ((step + 1) % kStepsOfWord == 0 && number < words) {
        out.write(Store{stage.result + at.row * words + number, false, word});
      }
      last = step + 1 == kSteps;
      step = last ? 0 : step + 1;
    }
    if (last) {
      at.advance<K>(stage);
      ++done;
    }
  }
  out.write(end_of_stores());
}

// Logits of each row to its slot.
//   K     shape
// Cycles: two per tile and row; at first one per row.
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
  TileValues tile = {};
  for (uint32_t i = 0; i < 2 * stage.tiles * stage.rows; ++i) {
    HLS_TRIPS(1, 2 * row_tiles(K::vocab) * K::rows)
    HLS_PIPELINE(1)
    HLS_DEPTH(latency::dsp)
    const uint32_t half = i % 2;
    if (half == 0) tile = tiles.read();
    const uint32_t word = 2 * at.tile + half;
    out.write(Store{stage.result + slot[at.row] * words + word, false, half_of(tile, half)});
    if (half == 1) at.advance<K>(stage);
  }
  out.write(end_of_stores());
}

}  // namespace kernels
}  // namespace flexllm
