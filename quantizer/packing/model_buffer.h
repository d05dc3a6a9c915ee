// The model buffer of docs/launch.md, built in memory: header, layer table, gains, RoPE table.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "formats/model_config.h"
#include "kernels/contract/launch.h"
#include "quantizer/scheme.h"

namespace flexllm::quantizer {

class ModelBuffer {
 public:
  // Writes the header and reserves the layer table and the RoPE table of `context` positions.
  ModelBuffer(const formats::ModelConfig& config, const Scheme& scheme, uint32_t streams,
              uint32_t context);

  // Appends floats on a word boundary; returns their offset in words.
  uint32_t append(std::span<const float> values);
  void set_layer(uint32_t layer, uint32_t field, uint32_t value);
  void set(uint32_t field, uint32_t value);

  // Call last: records the size.
  std::span<const std::byte> finish();

 private:
  void append_rope(const formats::ModelConfig& config, uint32_t context);

  std::vector<uint32_t> fields_;
};

// Block of R4 for a feed-forward size: the largest power of two that divides it, at most 512.
uint32_t hadamard_block(uint32_t ffn);

}  // namespace flexllm::quantizer
