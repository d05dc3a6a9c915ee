// Private to this folder: causal attention of some windows, section 5 of docs/numerics.md.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "quantizer/algebra/matrix.h"
#include "quantizer/algebra/workers.h"

namespace flexllm::quantizer {

struct AttentionShape {
  size_t heads = 0;
  size_t kv_heads = 0;
  size_t head_dim = 0;
  float rms_eps = 0;
  bool int8 = false;
  uint32_t probability_bits = 0;          // 0: binary32
  std::span<const float> q_norm, k_norm;  // empty: none
  std::span<const double> frequencies;    // head_dim / 2, radians per position
};

// q [tokens][heads * head_dim], k and v [tokens][kv_heads * head_dim] as the linears give them;
// they are spoilt. Window w is the rows [starts[w], starts[w + 1]), its first row at position 0.
// Writes every row of out [tokens][heads * head_dim].
void attend(const AttentionShape& shape, std::span<const size_t> starts, View q, View k, View v,
            View out, Workers& workers);

}  // namespace flexllm::quantizer
