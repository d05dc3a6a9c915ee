// The inner loops of the twins, as one table of functions for each instruction set. All of them are
// pure functions of their arguments and keep to docs/numerics.md; callers hold FlushDenormals.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/contract/layout.h"
#include "kernels/contract/numerics.h"

namespace flexllm::kernels::twin {

// Quantised input rows of a linear layer, in tokens x inputs.
struct Activations {
  uint32_t tokens = 0;
  uint32_t inputs = 0;
  uint32_t groups = 0;
  const uint8_t* q = nullptr;              // [tokens][inputs]
  const int32_t* group_sums = nullptr;     // [tokens][groups], sums of q
  const AsymmetricScale* scale = nullptr;  // [tokens]
};

// One weight tile, its parts resolved (kernels/contract/layout.h).
struct Tile {
  bool two_planes = false;
  const float* scales = nullptr;         // [32]
  const float* weight_sums = nullptr;    // [32]
  const float* bias = nullptr;           // [32] or null
  const uint8_t* multipliers = nullptr;  // [groups][32] or null
  const uint8_t* planes[2] = {};         // [inputs / 4][64]
};

// Attention of one KV head: `queries` quantised query heads of rows of one sequence, query i over
// positions 0..lengths[i]-1, lengths ascending.
struct AttentionHead {
  uint32_t head_dim = 0;
  uint32_t queries = 0;
  const int8_t* q = nullptr;          // [queries][64 * head_words]
  const float* scale = nullptr;       // [queries], s_q / sqrt(head_dim)
  const uint32_t* lengths = nullptr;  // [queries]
  std::byte* const* pages = nullptr;  // layer blocks of the sequence's pages
  uint32_t kv_head = 0;
  uint32_t kv_heads = 0;
  uint32_t head_words = 0;
  uint32_t scale_words = 0;
  uint32_t keys = 0;  // words from the layer block
  uint32_t values = 0;
  float levels = 0;         // 255 or 65535
  float* scores = nullptr;  // work: [queries][padded], padded = lengths up to whole pages
  uint32_t padded = 0;
  float* const* out = nullptr;  // [queries] -> head_dim floats
};

struct Ops {
  // y[token * stride + row] for the 32 rows of the tile.
  void (*linear_tile)(const Tile& tile, const Activations& x, float* y, size_t stride);
  void (*attention)(const AttentionHead& head);
  void (*rms_norm)(const float* x, const float* gain, uint32_t n, float eps, float* y);
  // q, the sums of q over groups of 64, and the scale.
  AsymmetricScale (*quantize)(const float* x, uint32_t n, const ActivationGrid& grid, uint8_t* q,
                              int32_t* group_sums);
  // Symmetric INT8, zero-padded to `padded`; returns the scale.
  float (*quantize_head)(const float* x, uint32_t n, uint32_t padded, int8_t* q);
  void (*rope)(float* x, const float* table, uint32_t head_dim);
  void (*silu_gate)(const float* gate, const float* up, uint32_t n, float* y);
  void (*hadamard)(float* y, uint32_t n, uint32_t block, float scale);
  void (*add)(float* x, const float* y, uint32_t n);
  float (*sum_exp)(const float* x, uint32_t n, float max);
};

namespace scalar {
extern const Ops kOps;
}
namespace avx2 {
extern const Ops kOps;
}
namespace avx512_vnni {
extern const Ops kOps;
}

}  // namespace flexllm::kernels::twin
