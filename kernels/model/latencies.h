// Latencies that the cycle model adds to the loops' own cycles. Those of operations stand in
// kernels/hls/latency.h. Those of whole modules were rounded from the virtual time of layers of
// Llama-3.2-1B and SmolLM2-135M, which kernels.cycle_model_* compare.
#pragma once

#include <cstdint>

#include "kernels/hls/latency.h"
#include "kernels/model/design.h"
#include "kernels/modules/derived_sizes.h"

namespace flexllm::kernels::model {

constexpr double kMemoryLatency = latency::memory_read;  // first word of a burst
constexpr double kBursts = 16;                           // of a port, under way at a time
constexpr double kSumInterval = 2;              // cycles per word of a norm's sum of squares
constexpr double kNormLatency = 100;            // fold, mean, square root, division
constexpr double kStageLatency = latency::add;  // of a Hadamard stage
constexpr double kQuantizeLatency = 40;         // scale: division twice
constexpr double kFillLatency = 20;
constexpr double kFeedLatency = 10;
constexpr double kPrefetchWords = 64;  // of weight words before an array
constexpr double kFoldLatency = 30;
constexpr double kHeadsLatency = 400;  // RoPE, head scales and records of the last heads
constexpr double kSiluLatency = 250;   // exp, division, products
constexpr double kStoreLatency = 160;  // behind the dequantiser, to the end of the write
constexpr double kRegionTurn = latency::region_start + latency::region_end;

constexpr double kCombineLatency = 30;     // maxima of all KV ports
constexpr double kSoftenLatency = 120;     // exp, two products, rounding
constexpr double kGatherLatency = 150;     // conversion, division
constexpr double kPageWords = 512;         // words that a KV port may run ahead
constexpr double kRowResultLatency = 120;  // fold, logarithm

constexpr double log2_of(uint32_t power) {
  double n = 0;
  while (power > 1) {
    power /= 2;
    n += 1;
  }
  return n;
}

// Exponentials of the row results side by side.
inline uint32_t logits_lanes(const Kernel& kernel) {
  return kernel.stage == Stage::decode ? decode_logits_lanes(kernel.outputs) : 1;
}

// Rows of a sequence that share a pass over its pages.
inline uint32_t rows_of_block(const Kernel& kernel) {
  return kernel.stage == Stage::prefill ? prefill_attention_rows(kernel.tp) : 1;
}

// Tokens of a block whose scores a KV port keeps between the passes.
inline uint32_t score_tokens(const Kernel& kernel) {
  return kept_score_tokens(kernel.kv_ports(), rows_of_block(kernel));
}

}  // namespace flexllm::kernels::model
