// Shapes and arrays of the kernels from the numbers of an accelerator (configs/accelerators/).
// Build is made by scripts/kernel_tops.py: the maxima, the streams, and the kernel's ports and
// parallelism as constexpr members.
#pragma once

#include <cstdint>

#include "kernels/contract/layout.h"

namespace flexllm {
namespace kernels {

constexpr uint32_t clamp_parallel(uint32_t wanted, uint32_t most) {
  return wanted < 1 ? 1 : wanted < most ? wanted : most;
}

template <typename Build>
struct CommonShape {
  static constexpr uint32_t hidden = Build::d;
  static constexpr uint32_t ffn = Build::ffn;
  static constexpr uint32_t heads = Build::heads;
  static constexpr uint32_t kv_heads = Build::kv_heads;
  static constexpr uint32_t head_dim = Build::head_dim;
  static constexpr uint32_t context = Build::context;
  static constexpr uint32_t vocab = Build::vocabulary;
  static constexpr uint32_t weight_streams = Build::weight_streams;
  static constexpr uint32_t weight_ports = Build::weight_ports;
  static constexpr uint32_t arrays = Build::weight_ports;
  static constexpr uint32_t kv_streams = Build::kv_streams;
  static constexpr uint32_t kv_ports = Build::kv_ports;
  static constexpr uint32_t head_parallel = Build::head_parallel;
  static constexpr uint32_t kv_parallel = Build::kv;
};

// Rows of one sequence that pass over its pages together in prefill.
constexpr uint32_t kMaxAttentionRows = 8;

template <typename Build>
struct PrefillShape : CommonShape<Build> {
  static constexpr uint32_t rows = Build::prefill_rows;
  static constexpr uint32_t attention_rows = clamp_parallel(Build::tp, kMaxAttentionRows);
};

template <typename Build>
struct DecodeShape : CommonShape<Build> {
  static constexpr uint32_t rows = Build::batch;
  static constexpr uint32_t attention_rows = 1;
};

// TP rows at a time by this port's share of WP weights.
template <typename Build, uint32_t Wp>
struct PrefillArray {
  static constexpr uint32_t weights = Wp / Build::weight_ports;
  static constexpr uint32_t token_parallel = clamp_parallel(Build::tp, 16);
  static constexpr uint32_t row_parallel = clamp_parallel(weights, kTileRows);
  static constexpr uint32_t input_parallel = clamp_parallel(weights / kTileRows, kInputsPerWord);
};

// This port's share of BP x WP weights; more than a word times further rows.
template <typename Build>
struct DecodeArray {
  static constexpr uint32_t weights = Build::bp * Build::wp_feed_forward / Build::weight_ports;
  static constexpr uint32_t row_parallel = clamp_parallel(weights, kTileRows);
  static constexpr uint32_t input_parallel = clamp_parallel(weights / kTileRows, kInputsPerWord);
  static constexpr uint32_t token_parallel =
      clamp_parallel(weights / (kTileRows * kInputsPerWord), 16);
};

}  // namespace kernels
}  // namespace flexllm
