// What the modules of the kernels hand to each other. C++14.
//
// Shape (template parameter K of most modules): the sizes that a build of a kernel is made for. A
// struct of constexpr uint32_t:
//   rows, hidden, ffn, heads, kv_heads, head_dim, context, vocab   maxima of a launch
//   panel_rows   rows that all tiles of a matrix are multiplied by before the next rows; a power of
//                two from 16 on if a launch may have more
//   weight_streams, weight_ports   arenas, and AXI ports that they are dealt to
//   arrays                         that the tiles of a matrix are dealt to
//   kv_streams, kv_ports           likewise for KV pages
//   attention_rows                 rows of a sequence that share one pass over its pages
//   logits_parallel                exponentials of the row results side by side
//   head_parallel, kv_parallel     heads and elements of K or V that are multiplied side by side
// Array (template parameter A): token_parallel, row_parallel, input_parallel: how much of a weight
// word times an activation word is multiplied per cycle.
// Neither changes a bit of any result.
#pragma once

#include <cstdint>

#include "kernels/contract/launch.h"
#include "kernels/hls/stream.h"
#include "kernels/hls/task.h"
#include "kernels/hls/word.h"

namespace flexllm {
namespace kernels {

constexpr uint32_t kBlockRows = 16;  // rows of an activation word: a lane each
constexpr uint32_t kBytesPerWord = kWordBytes;
constexpr uint32_t kGroupWords = kGroupInputs / kInputsPerWord;  // plane words of a group
constexpr uint32_t kMaxHadamardBlock = 512;

// `floats` rounded up to whole words: the size of a buffer that is filled word by word.
constexpr uint32_t padded(uint32_t floats) { return float_words(floats) * kFloatsPerWord; }

// A row of the launch as tasks need it: the row table's word, its index and, in the stages that
// write K and V, the id of the page that its position lies in.
struct RowInfo {
  uint32_t row;
  uint32_t sequence;
  uint32_t position;
  uint32_t flags;
  uint32_t target;
  uint32_t residual;
  uint32_t final_norm;
  uint32_t row_result;
  uint32_t logits_slot;
  uint32_t page;
};

// Dimensions and constants of the model, as in its header.
struct ModelInfo {
  uint32_t layers;
  uint32_t hidden;
  uint32_t heads;
  uint32_t kv_heads;
  uint32_t head_dim;
  uint32_t ffn;
  uint32_t vocab;
  uint32_t context;
  float rms_eps;
  float inv_sqrt_head_dim;
  uint32_t hadamard_block;
  float hadamard_scale;
  uint32_t probability_levels;  // 255 or 65535
  uint32_t rope;                // word of the model buffer
  uint32_t layer_table;
  uint32_t final_norm;
  uint32_t lm_head;
  uint32_t lm_head_precision;

  uint32_t attention() const { return heads * head_dim; }
  uint32_t qkv_rows() const { return (heads + 2 * kv_heads) * head_dim; }
  KvLayout kv() const { return KvLayout{layers, kv_heads, head_dim}; }
};

// The launch header, and the number of rows that want logits.
struct LaunchInfo {
  uint32_t id;
  uint32_t layer_begin;
  uint32_t layer_end;
  uint32_t rows;
  uint32_t logits_rows;
  uint32_t row_table;  // words of the descriptor
  uint32_t page_tables;
  uint32_t page_table_stride;
  uint32_t inputs;
  uint32_t logits;  // words of scratch
  uint32_t work;
};

// Which matrix a linear stage multiplies by, and so what happens before and behind it.
enum StageKind : uint32_t { kQkv, kOutput, kGateUp, kDown, kLmHead };

// One matrix of one layer, applied to the rows of the launch. Rows are read from and written to
// scratch at `base + row * row_words`.
struct Stage {
  StageKind kind;
  uint32_t rows;  // that take part
  uint32_t inputs;
  uint32_t outputs;  // true output rows; of gate_up the rows of one half
  uint32_t tiles;
  uint32_t weights;    // offset in the arenas
  uint32_t precision;  // Precision::encode()
  uint32_t input;      // scratch: rows that enter
  uint32_t residual;   // scratch: rows that are added (kOutput, kDown)
  uint32_t result;     // scratch: rows that leave; queries of kQkv, logits of kLmHead
  uint32_t gain;       // model buffer: norm gain (kQkv, kGateUp, kLmHead)
  uint32_t q_norm;     // model buffer (kQkv); 0: none
  uint32_t k_norm;
  uint32_t layer;

  bool normalized() const { return kind == kQkv || kind == kGateUp || kind == kLmHead; }
  bool residual_added() const { return kind == kOutput || kind == kDown; }
  // Rows of the panel that begins at row `begin`: at most `most`; 0 behind the last row.
  uint32_t rows_of_panel(uint32_t begin, uint32_t most) const {
    const uint32_t left = begin < rows ? rows - begin : 0u;
    return left < most ? left : most;
  }
  TileLayout tile() const { return TileLayout{inputs, Precision::decode(precision)}; }
  // Words of an output row in scratch.
  uint32_t result_words() const {
    return kind == kLmHead ? logits_words(outputs) : float_words(outputs);
  }
};

// 32 output rows of one tile for one row of the launch.
struct TileSums {
  Accumulator value[kTileRows];
};
struct TileValues {
  float value[kTileRows];
};

// Whether the rows of a launch may be more than a panel: then two of them are kept, one that is
// multiplied and one that comes in.
template <typename K>
struct Panels {
  static_assert(K::panel_rows >= K::rows ||
                    (K::panel_rows % kBlockRows == 0 && (K::panel_rows & (K::panel_rows - 1)) == 0),
                "a panel is whole blocks of rows, and a power of two");
  static constexpr uint32_t kept = K::panel_rows < K::rows ? 2 : 1;
  static constexpr uint32_t rows = K::panel_rows < K::rows ? K::panel_rows : K::rows;
  // Row of its panel that a row of the launch is.
  static constexpr uint32_t row(uint32_t of_launch) {
    return kept == 1 ? of_launch : of_launch % rows;
  }
};

// Where in a matrix the next TileValues belongs: for each panel, pass over the arrays and row, the
// tiles of the pass. So the words of a row that leave one after the other lie side by side.
struct TileOrder {
  uint32_t tile;
  uint32_t row;

  uint32_t pass_begin;   // first tile of the pass
  uint32_t panel_begin;  // first row of the panel

  static TileOrder first() { return TileOrder{0, 0, 0, 0}; }

  // Row of the panel.
  uint32_t panel_row() const { return row - panel_begin; }

  // The next pair; at most stage.tiles * stage.rows times.
  template <typename K>
  void advance(const Stage& stage) {
    ++tile;
    if (tile < pass_begin + K::arrays && tile < stage.tiles) return;
    tile = pass_begin;
    ++row;
    if (row < stage.rows && row < panel_begin + Panels<K>::rows) return;
    row = panel_begin;
    pass_begin += K::arrays;
    tile = pass_begin;
    if (pass_begin < stage.tiles) return;
    panel_begin += Panels<K>::rows;
    pass_begin = 0;
    tile = 0;
    row = panel_begin;
  }
};

// A word on its way to scratch; the element with `last` carries none and ends the stream.
struct Store {
  uint32_t address;
  bool last;
  Word data;
};

// Likewise to a page: which arena of the port it goes to.
struct PageStore {
  uint32_t arena;
  uint32_t address;
  bool last;
  Word data;
};

// Says which head of which row the next float_words(head_dim) words are. Heads count q, k, v.
struct HeadTag {
  uint32_t row;
  uint32_t head;
};

inline Store end_of_stores() { return Store{0, true, zero_word()}; }

// The two words of a tile's values, half 0 or 1.
inline Word half_of(const TileValues& tile, uint32_t half) {
  Word word = zero_word();
  HLS_UNROLL_AHEAD
  for (uint32_t i = 0; i < kFloatsPerWord; ++i) {
    HLS_UNROLL
    set_float(word, i, tile.value[half * kFloatsPerWord + i]);
  }
  return word;
}

}  // namespace kernels
}  // namespace flexllm
