// The design that the FlexLLM paper publishes, described to the model with its own structure, so
// that the model can be held to published times (docs/cycle-model.md). It is not built here.
#pragma once

#include <cstdint>

#include "kernels/model/design.h"

namespace flexllm::kernels::model {

// configs/published/.
struct PublishedDesign {
  double prefill_clock_mhz;
  double decode_clock_mhz;
  // Prefill: engines for k and q, v and o, and each of gate, up and down, joined by streams.
  uint32_t tp;
  uint32_t wp_attention;
  uint32_t wp_feed_forward;
  uint32_t prefill_kv;  // keys, and values, multiplied at once
  // Decode: one engine of bp x wp.
  uint32_t bp;
  uint32_t wp;
  uint32_t heads;
  uint32_t decode_kv;
  uint32_t vocab_rows;  // padded
};

// Cycles of a prompt of `tokens` tokens.
double published_prefill_cycles(const PublishedDesign& design, const ModelShape& model,
                                uint32_t tokens);
// Cycles of a token that is decoded with `cached` tokens in the cache.
double published_decode_cycles(const PublishedDesign& design, const ModelShape& model,
                               double cached);

}  // namespace flexllm::kernels::model
