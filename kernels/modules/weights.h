// Weight tiles from the arenas. A port reads its tiles as one ascending walk through each of its
// arenas: pass p over the ports meets tile p * ports + port (docs/weight-layout.md).
#pragma once

#include "kernels/modules/types.h"

namespace flexllm {
namespace kernels {

// The arenas of all streams. Only indexed by constants once loops are unrolled.
template <uint32_t Streams>
struct Arenas {
  const Word* at[Streams];
};

// Reads the tiles of one port: scales, weight sums and bias to `parameters`, multipliers and planes
// to `words`.
//   K     shape; port p owns the arenas p, p + ports, p + 2 ports, ...
// Cycles: words of the tiles; at most one a cycle.
template <typename K>
void load_tiles(const Arenas<K::weight_streams> arenas, uint32_t port, const Stage stage,
                Stream<Word>& parameters, Stream<Word>& words) {
  static_assert(K::weight_streams % K::weight_ports == 0, "every port has as many arenas");
  const TileLayout layout = stage.tile();
  for (uint32_t tile = port; tile < stage.tiles; tile += K::weight_ports) {
    HLS_TRIPS(1, row_tiles(K::vocab) / K::weight_ports)
    const uint32_t begin = stage.weights + tile / K::weight_streams * layout.words();
    const uint32_t owner = tile % K::weight_streams;
    for (uint32_t w = 0; w < layout.words(); ++w) {
      HLS_TRIPS(5, 4 * float_words(K::ffn))
      HLS_PIPELINE(1)
      Word word = zero_word();
      HLS_UNROLL_AHEAD
      for (uint32_t stream = 0; stream < K::weight_streams; ++stream) {
        HLS_UNROLL
        if (stream % K::weight_ports == port && stream == owner)
          word = arenas.at[stream][begin + w];
      }
      if (w < layout.multipliers()) {
        parameters.write(word);
      } else {
        words.write(word);
      }
    }
  }
}

// Sends each tile of a port straight on.
//   K     shape, with one block of rows at most
// Cycles: words.
template <typename K>
void forward_tiles(uint32_t port, const Stage stage, Stream<Word>& in, Stream<Word>& out) {
  static_assert(K::rows <= kBlockRows, "more rows than a block need a replay");
  const TileLayout layout = stage.tile();
  const uint32_t words = layout.words() - layout.multipliers();
  for (uint32_t tile = port; tile < stage.tiles; tile += K::weight_ports) {
    HLS_TRIPS(1, row_tiles(K::vocab) / K::weight_ports)
    for (uint32_t w = 0; w < words; ++w) {
      HLS_TRIPS(1, K::hidden)
      HLS_PIPELINE(1)
      out.write(in.read());
    }
  }
}

// Keeps each tile of a port on chip and sends it once for every block of rows, so that the arenas
// are read once per launch.
//   K         shape
//   MaxWords  words of the largest tile
// Cycles: words * (1 + blocks).
template <typename K, uint32_t MaxWords>
void replay_tiles(uint32_t port, const Stage stage, Stream<Word>& in, Stream<Word>& out) {
  const TileLayout layout = stage.tile();
  const uint32_t words = layout.words() - layout.multipliers();
  Word kept[MaxWords];
  HLS_URAM(kept)
  for (uint32_t tile = port; tile < stage.tiles; tile += K::weight_ports) {
    HLS_TRIPS(1, row_tiles(K::vocab) / K::weight_ports)
    for (uint32_t w = 0; w < words; ++w) {
      HLS_TRIPS(1, MaxWords)
      HLS_PIPELINE(1)
      kept[w] = in.read();
    }
    for (uint32_t block = 0; block < stage.blocks(); ++block) {
      HLS_TRIPS(1, divide_up(K::rows, kBlockRows))
      for (uint32_t w = 0; w < words; ++w) {
        HLS_TRIPS(1, MaxWords)
        HLS_PIPELINE(1)
        out.write(kept[w]);
      }
    }
  }
}

}  // namespace kernels
}  // namespace flexllm
