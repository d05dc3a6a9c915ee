// Weight tiles from the arenas. A port reads its tiles as one ascending walk through each of its
// arenas: tile t lies in arena t mod arenas (docs/weight-layout.md), on port t mod ports, and goes
// to array t mod arrays, which is one of the port's.
#pragma once

#include "kernels/hls/latency.h"
#include "kernels/hls/memory.h"
#include "kernels/modules/types.h"

namespace flexllm {
namespace kernels {

// Arenas by number. Only indexed by constants once loops are unrolled.
template <uint32_t Streams>
struct Arenas {
  const Word* at[Streams];
};

// How arenas and arrays are dealt to the ports: arena and array i is on port i mod ports.
template <typename K>
struct PortShare {
  static_assert(K::weight_streams % K::weight_ports == 0, "every port has as many arenas");
  static_assert(K::arrays % K::weight_ports == 0, "every port feeds as many arrays");
  static constexpr uint32_t arenas = K::weight_streams / K::weight_ports;
  static constexpr uint32_t arrays = K::arrays / K::weight_ports;
};

// The arenas of one port: port, port + ports, ...
template <typename K>
inline Arenas<PortShare<K>::arenas> arenas_of_port(const Arenas<K::weight_streams>& all,
                                                   uint32_t port) {
  Arenas<PortShare<K>::arenas> own;
  HLS_UNROLL_AHEAD
  for (uint32_t i = 0; i < PortShare<K>::arenas; ++i) {
    HLS_UNROLL
    own.at[i] = all.at[port + i * K::weight_ports];
  }
  return own;
}

// Reads `tiles` tiles that lie one behind the other in an arena, and deals them to the arrays of a
// port in turn, from its array `slot` on.
//   K     shape
// Cycles: one per word.
template <typename K, typename Parameters, typename Multipliers, typename Planes>
inline void load_run(const Word* arena, uint32_t begin, uint32_t tiles, const TileLayout layout,
                     uint32_t slot, Parameters (&parameters)[PortShare<K>::arrays],
                     Multipliers (&multipliers)[PortShare<K>::arrays],
                     Planes (&planes)[PortShare<K>::arrays]) {
  const uint32_t words = tiles * layout.words();
  uint32_t word = 0;  // of the tile
  for (uint32_t w = 0; w < words; ++w) {
    HLS_TRIPS(5, K::hidden)
    HLS_PIPELINE(1)
    const Word data = read_word(arena, begin + w);
    HLS_UNROLL_AHEAD
    for (uint32_t i = 0; i < PortShare<K>::arrays; ++i) {
      HLS_UNROLL
      if (i != slot) continue;
      if (word < layout.multipliers()) {
        parameters[i].write(data);
      } else if (word < layout.planes()) {
        multipliers[i].write(data);
      } else {
        planes[i].write(data);
      }
    }
    if (++word == layout.words()) {
      word = 0;
      slot = slot + 1 == PortShare<K>::arrays ? 0 : slot + 1;
    }
  }
}

// Reads the tiles of one port once for each panel of rows, each for its array: scales, weight sums
// and bias to `parameters`, group multipliers to `multipliers`, planes to `planes`.
//   K       shape
//   arenas  those of the port: arenas_of_port()
// Cycles: panels * words of the port's tiles, one a cycle. A port with one arena reads a matrix as
// one burst; one with several reads a burst a tile, and waits once more for the memory at each.
template <typename K, typename Parameters, typename Multipliers, typename Planes>
void load_tiles(const Arenas<PortShare<K>::arenas> arenas, uint32_t port, const Stage stage,
                Parameters (&parameters)[PortShare<K>::arrays],
                Multipliers (&multipliers)[PortShare<K>::arrays],
                Planes (&planes)[PortShare<K>::arrays]) {
  constexpr uint32_t kArenas = PortShare<K>::arenas;
  const TileLayout layout = stage.tile();
  const uint32_t tiles = (stage.tiles + K::weight_ports - 1 - port) / K::weight_ports;
  for (uint32_t panel = 0; panel < stage.rows; panel += Panels<K>::rows) {
    HLS_TRIPS(1, divide_up(K::rows, Panels<K>::rows))
    if (kArenas == 1) {
      load_run<K>(arenas.at[0], stage.weights, tiles, layout, 0, parameters, multipliers, planes);
      continue;
    }
    uint32_t begin = stage.weights;
    uint32_t arena = 0;
    uint32_t slot = 0;
    for (uint32_t tile = 0; tile < tiles; ++tile) {
      HLS_TRIPS(1, row_tiles(K::vocab) / K::weight_ports)
      HLS_UNROLL_AHEAD
      for (uint32_t i = 0; i < kArenas; ++i) {
        HLS_UNROLL
        if (i == arena) {
          load_run<K>(arenas.at[i], begin, 1, layout, slot, parameters, multipliers, planes);
        }
      }
      slot = slot + 1 == PortShare<K>::arrays ? 0 : slot + 1;
      if (++arena == kArenas) {
        arena = 0;
        begin += layout.words();
      }
    }
  }
}

// Sends the planes of an array's tiles straight on.
//   K     shape, with one block of rows at most
// Cycles: words.
template <typename K>
void forward_tiles(uint32_t array, const Stage stage, Stream<Word>& in, Stream<Word>& out) {
  static_assert(K::rows <= kBlockRows, "more rows than a block need a replay");
  const TileLayout layout = stage.tile();
  const uint32_t tiles = array < stage.tiles ? (stage.tiles - 1 - array) / K::arrays + 1 : 0;
  const uint32_t words = tiles * (layout.words() - layout.planes());
  for (uint32_t w = 0; w < words; ++w) {
    HLS_TRIPS(1, row_tiles(K::vocab) / K::arrays * K::hidden)
    HLS_PIPELINE(1)
    out.write(in.read());
  }
}

// Keeps the planes of each tile of an array on chip and sends them once for every block of a
// panel's rows, so that the arenas are read once per panel. While a tile is sent the next is
// loaded, that of the next panel too: the arrays of a port one after the other, each in its share
// of the time, word by word at an even pace, so that a port as slow as that holds no array back.
//   K         shape
//   MaxWords  plane words of the largest tile
// Cycles, in one loop: the first tile's words; then for each tile words * blocks, or, if the port
// has more arrays than there are blocks and another tile follows, up to the end of the array's
// share: words * (its place among the arrays of the port + 1). Memory: 2 * MaxWords words (URAM).
template <typename K, uint32_t MaxWords>
void replay_tiles(uint32_t array, const Stage stage, Stream<Word>& in, Stream<Word>& out) {
  constexpr uint32_t kShares = PortShare<K>::arrays;
  constexpr uint32_t kBlocks = divide_up(Panels<K>::rows, kBlockRows);
  const TileLayout layout = stage.tile();
  const uint32_t words = layout.words() - layout.planes();
  const uint32_t place = array / K::weight_ports;
  Word kept[2][MaxWords];
  HLS_PARTITION(kept, 1)
  HLS_URAM(kept)
  uint32_t tile = array;     // that is loaded
  uint32_t panel = 0;        // first row of the panel that it is loaded for
  uint32_t bank = 0;         // that it goes to
  uint32_t wait = 0;         // iterations until it is loaded
  uint32_t pace = kShares;   // iterations in which the arrays of the port load a word each
  uint32_t credit = 0;       // of the pace
  uint32_t loaded = 0;       // words of it
  uint32_t sent = 0;         // words of the other bank, in this block
  uint32_t blocks_left = 0;  // of rows, that the other bank is still sent for
  bool loads = array < stage.tiles;
  // Of an array that has no tile in the last pass: the port's next tiles are for the others, which
  // have no room before that pass.
  const bool pauses = stage.tiles % K::arrays != 0 && array >= stage.tiles % K::arrays;
  while (loads || blocks_left > 0) {
    HLS_TRIPS(1, row_tiles(K::vocab) / K::arrays * K::hidden)
    HLS_PIPELINE(1)
    HLS_DEPTH(latency::chip_read)
    const bool sends = blocks_left > 0;
    if (sends) {
      out.write(kept[1 - bank][sent]);
      if (++sent == words) {
        sent = 0;
        --blocks_left;
      }
    }
    if (!loads || (sends && pauses && tile == array)) continue;
    credit += kShares;
    if (wait > 0) {
      --wait;
      credit = 0;
    } else if (loaded < words && (credit >= pace || !sends)) {
      credit = sends ? credit - pace : 0;
      kept[bank][loaded] = in.read();
      ++loaded;
    }
    if (loaded == words && blocks_left == 0) {
      const bool whole = panel + Panels<K>::rows <= stage.rows;
      blocks_left = whole ? kBlocks : divide_up(stage.rows - panel, kBlockRows);
      pace = blocks_left > kShares ? blocks_left : kShares;
      wait = place * words * pace / kShares;
      credit = 0;
      bank = 1 - bank;
      loaded = 0;
      tile += K::arrays;
      if (tile >= stage.tiles) {
        tile = array;
        panel += Panels<K>::rows;
        loads = panel < stage.rows;
      }
    }
  }
}

}  // namespace kernels
}  // namespace flexllm
