// Sizes of a kernel that follow from its parallelism: one place for the kernels' shapes and for the
// cycle model. C++14.
#pragma once

#include <cstdint>

namespace flexllm {
namespace kernels {

constexpr uint32_t kMaxAttentionRows = 8;   // rows of a sequence that share a pass over its pages
constexpr uint32_t kMaxLogitsLanes = 8;     // exponentials of the row results side by side
constexpr uint32_t kAllScoreTokens = 8192;  // whose scores are kept, of all KV ports and rows

constexpr uint32_t at_most(uint32_t wanted, uint32_t most) { return wanted < most ? wanted : most; }

// Rows that share a pass, of a prefill kernel that multiplies `tp` rows at once; decode: 1.
constexpr uint32_t prefill_attention_rows(uint32_t tp) { return at_most(tp, kMaxAttentionRows); }

// Exponentials side by side, of a decode kernel that dequantises `outputs` a cycle; prefill: 1, for
// a row or two of its launches have results.
constexpr uint32_t decode_logits_lanes(uint32_t outputs) {
  return at_most(outputs, kMaxLogitsLanes);
}

// Tokens of a block of rows whose scores a KV port keeps between the passes.
constexpr uint32_t kept_score_tokens(uint32_t kv_ports, uint32_t attention_rows) {
  return kAllScoreTokens / (kv_ports * attention_rows);
}

}  // namespace kernels
}  // namespace flexllm
