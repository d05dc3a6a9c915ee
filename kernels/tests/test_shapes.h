// Small builds of the kernels for tests. Sizes differ between them in every respect that must not
// change a bit: streams, ports, arrays, rows that share a pass.
#pragma once

#include "kernels/tests/random_case.h"

namespace flexllm::kernels {

// Maxima shared by the small builds, and the same for the generator and the twin.
struct SmallMaxima {
  static constexpr uint32_t hidden = 128;
  static constexpr uint32_t ffn = 192;
  static constexpr uint32_t heads = 8;
  static constexpr uint32_t kv_heads = 4;
  static constexpr uint32_t head_dim = 32;
  static constexpr uint32_t context = 160;
  static constexpr uint32_t vocab = 300;
};

// Decode: a port per stream, one block of rows, rows attend one by one.
struct SmallDecode : SmallMaxima {
  static constexpr uint32_t rows = 16;
  static constexpr uint32_t panel_rows = 16;
  static constexpr uint32_t weight_streams = 4;
  static constexpr uint32_t weight_ports = 4;
  static constexpr uint32_t arrays = 4;
  static constexpr uint32_t kv_streams = 2;
  static constexpr uint32_t kv_ports = 2;
  static constexpr uint32_t attention_rows = 1;
  static constexpr uint32_t score_tokens = 32;  // of a port: longer blocks are scored twice
  static constexpr uint32_t logits_parallel = 8;
  static constexpr uint32_t head_parallel = 2;
  static constexpr uint32_t kv_parallel = 16;
  static constexpr uint32_t output_parallel = 8;
};

// Prefill: several arenas and arrays to a port, several blocks of rows, odd numbers of them.
struct SmallPrefill : SmallMaxima {
  static constexpr uint32_t rows = 80;
  static constexpr uint32_t panel_rows = 80;
  static constexpr uint32_t weight_streams = 6;
  static constexpr uint32_t weight_ports = 3;
  static constexpr uint32_t arrays = 6;
  static constexpr uint32_t kv_streams = 4;
  static constexpr uint32_t kv_ports = 2;
  static constexpr uint32_t attention_rows = 5;
  static constexpr uint32_t logits_parallel = 2;
  static constexpr uint32_t head_parallel = 4;
  static constexpr uint32_t kv_parallel = 8;
  static constexpr uint32_t output_parallel = 4;
};

// The same by panels: the third is not full.
struct SmallPanels : SmallPrefill {
  static constexpr uint32_t panel_rows = 32;
};

struct NarrowArray {
  static constexpr uint32_t token_parallel = 1;
  static constexpr uint32_t row_parallel = 32;
  static constexpr uint32_t input_parallel = 2;
};

struct WideArray {
  static constexpr uint32_t token_parallel = 8;
  static constexpr uint32_t row_parallel = 16;
  static constexpr uint32_t input_parallel = 1;
};

template <typename K>
twin::Maxima twin_maxima() {
  return twin::Maxima{K::rows,     K::hidden,   K::ffn,     K::heads,
                      K::kv_heads, K::head_dim, K::context, K::vocab};
}

template <typename K>
CaseLimits case_limits(uint32_t sequences) {
  CaseLimits limits;
  limits.rows = K::rows;
  limits.sequences = sequences;
  limits.hidden = K::hidden;
  limits.ffn = K::ffn;
  limits.heads = K::heads;
  limits.kv_heads = K::kv_heads;
  limits.head_dim = K::head_dim;
  limits.context = K::context;
  limits.vocab = K::vocab;
  return limits;
}

// The small builds, each compiled once.
uint32_t run_small_decode(const twin::Buffers& buffers);
uint32_t run_small_prefill(const twin::Buffers& buffers);
uint32_t run_small_prefill_temporal(const twin::Buffers& buffers);

}  // namespace flexllm::kernels
