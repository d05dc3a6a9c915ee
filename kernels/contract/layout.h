// Where things lie in card memory: weight tiles in the arenas, KV records in pages, rows in
// buffers. All sizes are in 64-byte words unless a name says otherwise. Pure arithmetic, C++14,
// shared by the packer, the host runtime, the kernels and the twins. Described in
// docs/weight-layout.md and docs/kv-cache.md.
#pragma once

#include <cstdint>

namespace flexllm {
namespace kernels {

constexpr uint32_t kWordBytes = 64;
constexpr uint32_t kFloatsPerWord = kWordBytes / 4;

constexpr uint32_t kTileRows = 32;       // output rows of a weight tile
constexpr uint32_t kInputsPerWord = 4;   // consecutive inputs in a plane word
constexpr uint32_t kGroupInputs = 64;    // inputs that share a group multiplier
constexpr uint32_t kMaxMultiplier = 63;  // unsigned 6 bit

constexpr uint32_t kPageTokens = 32;  // tokens of a KV page

constexpr uint32_t divide_up(uint32_t a, uint32_t b) { return (a + b - 1) / b; }
constexpr uint32_t float_words(uint32_t floats) { return divide_up(floats, kFloatsPerWord); }

// Where the numbers of the rows that enter a matrix lie (docs/numerics.md, section 3).
struct ActivationGrid {
  uint32_t levels;  // 15 or 255: numbers are 0..levels
  uint32_t clip;    // 256ths that are cut off the row's range, 0..255
  bool symmetric;   // the range is as wide on both sides of 0

  constexpr float fraction() const { return static_cast<float>(256 - clip) / 256.0f; }
};

// How one matrix is stored and multiplied. Weight q4/q8 is kept as unsigned planes of 4 bits.
struct Precision {
  uint32_t weight_planes;      // 1: w + 8, 2: w + 128 (low nibbles first)
  uint32_t activation_planes;  // 1: u4, 2: u8
  bool grouped;                // group multipliers present; else all ones
  bool bias;                   // one float per output row added to the result
  bool symmetric = false;      // ActivationGrid
  uint32_t clip = 0;           // ActivationGrid

  // Encoding in a model record: bits 0-3 weight planes, 4-7 activation planes, 8 grouped, 9 bias,
  // 10 symmetric, 16-23 clip.
  constexpr uint32_t encode() const {
    return weight_planes | (activation_planes << 4) | (grouped ? 1u << 8 : 0u) |
           (bias ? 1u << 9 : 0u) | (symmetric ? 1u << 10 : 0u) | (clip << 16);
  }
  static constexpr Precision decode(uint32_t bits) {
    return Precision{bits & 15u,
                     (bits >> 4) & 15u,
                     ((bits >> 8) & 1u) != 0,
                     ((bits >> 9) & 1u) != 0,
                     ((bits >> 10) & 1u) != 0,
                     (bits >> 16) & 255u};
  }
  // False if a bit is set that means nothing, or a number of planes is not 1 or 2.
  static constexpr bool valid(uint32_t bits) {
    return (bits & 0xff00f800u) == 0 && ((bits & 15u) == 1 || (bits & 15u) == 2) &&
           ((bits >> 4 & 15u) == 1 || (bits >> 4 & 15u) == 2);
  }
  constexpr uint32_t levels() const { return activation_planes == 1 ? 15u : 255u; }
  constexpr ActivationGrid grid() const { return ActivationGrid{levels(), clip, symmetric}; }
  constexpr int32_t weight_offset() const { return weight_planes == 1 ? 8 : 128; }
};

// A tile holds 32 output rows of a matrix and all its inputs:
//   scales       2 words   float[32], s_w of each row (0 for padding rows)
//   weight sums  2 words   float[32], s_w * sum_g m_g sum_i w
//   bias         2 words   float[32], only if Precision::bias
//   multipliers  ceil(groups / 2) words, only if grouped: byte [group][row]
//   plane 0      inputs / 4 words, then plane 1 if there is one.
// Byte 4 r + i of a plane word, r in 0..15 and i in 0..3: low nibble row r, high nibble row r + 16,
// of input 4 * word + i.
struct TileLayout {
  uint32_t inputs;
  Precision precision;

  constexpr uint32_t groups() const { return divide_up(inputs, kGroupInputs); }
  constexpr uint32_t scales() const { return 0; }
  constexpr uint32_t weight_sums() const { return 2; }
  constexpr uint32_t bias() const { return 4; }
  constexpr uint32_t multipliers() const { return precision.bias ? 6 : 4; }
  constexpr uint32_t planes() const {
    return multipliers() + (precision.grouped ? divide_up(groups(), 2) : 0);
  }
  constexpr uint32_t plane_words() const { return inputs / kInputsPerWord; }
  constexpr uint32_t words() const { return planes() + precision.weight_planes * plane_words(); }
};

// Tiles rotate over the streams (arenas): tile t is tile t / streams of stream t mod streams. Every
// stream reserves the same room for a matrix, so that one offset serves all of them.
constexpr uint32_t row_tiles(uint32_t rows) { return divide_up(rows, kTileRows); }
constexpr uint32_t matrix_words(uint32_t rows, const TileLayout& tile, uint32_t streams) {
  return divide_up(row_tiles(rows), streams) * tile.words();
}

// gate and up are one matrix whose tiles alternate: tile 2 i is gate rows 32 i.., 2 i + 1 is up.
constexpr uint32_t gate_up_tiles(uint32_t ffn) { return 2 * row_tiles(ffn); }

// A KV page holds 32 tokens of all layers of one sequence. In it, each layer has a block of
//   scales  32 tokens x scale_words   float[2 * kv_heads]: K scales of the heads, then V scales
//   keys    32 tokens x kv_heads x head_words   INT8, zero-padded to whole words
//   values  likewise.
// Page p lies in KV stream p mod streams, at page index p / streams.
struct KvLayout {
  uint32_t layers;
  uint32_t kv_heads;
  uint32_t head_dim;

  constexpr uint32_t head_words() const { return divide_up(head_dim, kWordBytes); }
  constexpr uint32_t scale_words() const { return float_words(2 * kv_heads); }
  constexpr uint32_t token_words() const { return kv_heads * head_words(); }
  constexpr uint32_t keys() const { return kPageTokens * scale_words(); }
  constexpr uint32_t values() const { return keys() + kPageTokens * token_words(); }
  constexpr uint32_t layer_words() const { return values() + kPageTokens * token_words(); }
  constexpr uint32_t page_words() const { return layers * layer_words(); }
};

// RoPE table row of a position: cos[head_dim / 2] then sin[head_dim / 2].
constexpr uint32_t rope_words(uint32_t head_dim) { return float_words(head_dim); }

// A logits row covers whole tiles; the logits of padding rows are +0.
constexpr uint32_t logits_words(uint32_t vocab) {
  return row_tiles(vocab) * (kTileRows / kFloatsPerWord);
}

}  // namespace kernels
}  // namespace flexllm
