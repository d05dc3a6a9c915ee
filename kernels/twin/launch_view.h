// A launch as the twin reads it: descriptor and model buffer parsed and checked against the sizes
// of the buffers, so that the loops behind it need no checks. Views point into the device buffers.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "kernels/contract/launch.h"
#include "kernels/twin/twin.h"

namespace flexllm::kernels::twin {

// One matrix in the arenas. `tiles` counts both halves of gate_up.
struct Matrix {
  uint32_t offset = 0;  // words
  uint32_t tiles = 0;
  TileLayout layout{};
};

struct Layer {
  Matrix qkv, o, gate_up, down;
  const float* attention_norm = nullptr;
  const float* ffn_norm = nullptr;
  const float* q_norm = nullptr;  // null: none
  const float* k_norm = nullptr;
};

struct Model {
  uint32_t hidden = 0, heads = 0, kv_heads = 0, head_dim = 0, ffn = 0, vocab = 0, context = 0;
  float rms_eps = 0, inv_sqrt_head_dim = 0, hadamard_scale = 0;
  uint32_t hadamard_block = 0;
  uint32_t probability_levels = 0;  // 255 or 65535
  const float* rope = nullptr;      // [context][rope_words * 16]
  const float* final_norm = nullptr;
  Matrix lm_head;
  std::vector<Layer> layers;  // those of the launch
  KvLayout kv{};

  uint32_t attention() const { return heads * head_dim; }
  uint32_t qkv_rows() const { return (heads + 2 * kv_heads) * head_dim; }
};

struct RowRecord {
  uint32_t sequence = 0, position = 0, flags = 0, target = 0;
  const float* input = nullptr;
  float* residual = nullptr;
  float* final_norm = nullptr;
  uint32_t* row_result = nullptr;
  float* logits = nullptr;
};

struct LaunchView {
  uint32_t id = 0;
  uint32_t layer_begin = 0;
  Model model;
  std::vector<RowRecord> rows;
  std::vector<std::vector<std::byte*>> pages;  // of each sequence, resolved to card memory
  std::span<const Span> weights;

  const std::byte* tile(const Matrix& matrix, uint32_t index) const {
    const size_t streams = weights.size();
    const size_t word = matrix.offset + (index / streams) * matrix.layout.words();
    return weights[index % streams].data + word * kWordBytes;
  }
};

// Fills `view` and returns launch_status::ok, or says why the launch is refused.
uint32_t read_launch(const Buffers& buffers, const Maxima& maxima, LaunchView& view);

}  // namespace flexllm::kernels::twin
