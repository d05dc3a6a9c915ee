// Shapes and arrays of the kernels from the numbers of an accelerator (configs/accelerators/).
// Build is made by scripts/kernel_tops.py: the maxima, the streams, and the kernel's ports and
// parallelism as constexpr members.
#pragma once

#include <cstdint>

#include "kernels/contract/layout.h"
#include "kernels/modules/derived_sizes.h"

namespace flexllm {
namespace kernels {

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
  static constexpr uint32_t arrays = Build::bp;
  static constexpr uint32_t kv_streams = Build::kv_streams;
  static constexpr uint32_t kv_ports = Build::kv_ports;
  static constexpr uint32_t head_parallel = Build::head_parallel;
  static constexpr uint32_t kv_parallel = Build::kv;
  static constexpr uint32_t output_parallel = Build::outputs;
};

template <typename Build>
struct PrefillShape : CommonShape<Build> {
  static constexpr uint32_t logits_parallel = 1;
  static constexpr uint32_t rows = Build::prefill_rows;
  static constexpr uint32_t panel_rows = Build::panel;
  static constexpr uint32_t attention_rows = prefill_attention_rows(Build::tp);
};

template <typename Build>
struct DecodeShape : CommonShape<Build> {
  static constexpr uint32_t logits_parallel = decode_logits_lanes(Build::outputs);
  static constexpr uint32_t rows = Build::batch;
  static constexpr uint32_t panel_rows = Build::panel;
  static constexpr uint32_t attention_rows = 1;
};

// TP rows of the launch times WP weights: a plane word of 128, or a part of its rows or inputs.
template <typename Build>
struct LinearArray {
  static_assert(Build::wp % 8 == 0 && kTileRows * kInputsPerWord % Build::wp == 0,
                "a whole part of a plane word");
  static constexpr uint32_t token_parallel = Build::tp;
  static constexpr uint32_t row_parallel = Build::wp < kTileRows ? Build::wp : kTileRows;
  static constexpr uint32_t input_parallel = Build::wp / row_parallel;
};

}  // namespace kernels
}  // namespace flexllm
