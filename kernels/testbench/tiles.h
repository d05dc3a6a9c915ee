// Output tiles as the arrays deliver them, and the stores that come of them. C++14.
#pragma once

#include "kernels/testbench/shapes.h"
#include "kernels/testbench/testbench.h"

namespace flexllm {
namespace kernels {

// The first rows of the panels of a launch, and of the blocks of a panel.
template <typename K>
std::vector<uint32_t> panels_of(uint32_t rows) {
  std::vector<uint32_t> begins;
  for (uint32_t row = 0; row < rows; row += K::panel_rows) begins.push_back(row);
  return begins;
}
template <typename K>
std::vector<uint32_t> blocks_of(uint32_t panel, uint32_t rows) {
  std::vector<uint32_t> begins;
  for (uint32_t row = panel; row < rows && row < panel + K::panel_rows; row += kBlockRows) {
    begins.push_back(row);
  }
  return begins;
}

struct TilePlace {
  uint32_t tile;
  uint32_t row;
};

// Which tile of which row comes when: of each panel, pass over the arrays and row the tiles.
template <typename K>
std::vector<TilePlace> tile_places(const Stage& stage) {
  std::vector<TilePlace> places;
  for (const uint32_t panel : panels_of<K>(stage.rows)) {
    for (uint32_t pass = 0; pass < stage.tiles; pass += K::arrays) {
      for (uint32_t row = panel; row < panel + K::panel_rows && row < stage.rows; ++row) {
        for (uint32_t tile = pass; tile < pass + K::arrays && tile < stage.tiles; ++tile) {
          places.push_back(TilePlace{tile, row});
        }
      }
    }
  }
  return places;
}

// Sends the tiles of a stage: output `o` of a row is value(row, o).
template <typename K, typename Value>
void send_tiles(const Stage& stage, const Value& value, Stream<TileValues>& out) {
  for (const TilePlace& at : tile_places<K>(stage)) {
    TileValues tile;
    for (uint32_t r = 0; r < kTileRows; ++r) {
      tile.value[r] = value(at.row, at.tile * kTileRows + r);
    }
    out.write(tile);
  }
}

// Compares stores up to their end with rows of `row_words` words that begin at `base`: each word
// of them is stored once, and nothing else. Floats behind the end of a row may be anything.
inline void compare_stores(const std::vector<Floats>& rows, uint32_t base, uint32_t row_words,
                           Stream<Store>& stores, Differences& differences) {
  const auto size = static_cast<uint32_t>(rows[0].size());
  std::vector<uint32_t> times(rows.size() * row_words, 0);
  for (Store store = stores.read(); !store.last; store = stores.read()) {
    const uint32_t at = store.address - base;
    differences.compare_bits("place of a store", size, at, 1, at < times.size() ? 1 : 0);
    if (at >= times.size()) continue;
    ++times[at];
    for (uint32_t lane = 0; lane < kFloatsPerWord; ++lane) {
      const uint32_t i = at % row_words * kFloatsPerWord + lane;
      if (i >= size) continue;
      differences.compare_bits("element", size, i, bits_of(rows[at / row_words][i]),
                               get_lane(store.data, lane));
    }
  }
  for (const uint32_t t : times) differences.compare_bits("times stored", size, 0, 1, t);
  differences.expect_empty("stores", stores.empty());
}

}  // namespace kernels
}  // namespace flexllm
