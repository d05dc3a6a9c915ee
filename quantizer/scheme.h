// A quantisation scheme: the precision of every matrix of a model, and its name.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "kernels/contract/layout.h"

namespace flexllm::quantizer {

// Bits are 4 or 8. Embedding rows stay binary16. The default is the one that docs/accuracy.md
// chooses.
struct Scheme {
  uint32_t weight_bits = 8;      // linears of the layers
  uint32_t activation_bits = 8;  // their inputs
  uint32_t lm_head_bits = 8;     // weights of lm_head
  uint32_t lm_head_activation_bits = 8;
  bool grouped = false;            // a multiplier for every 64 inputs of a row
  uint32_t probability_bits = 16;  // attention probabilities, 8 or 16
  bool rotate_down = true;         // R4: Hadamard blocks before down_proj

  // "w4a8kv8-lm8", with "g64" behind the weights when grouped, "a4" behind the bits of lm_head when
  // its inputs have 4 bits too, and "-r4" when rotated.
  std::string name() const;
  // The scheme of that name. Throws std::invalid_argument, whose message lists the parts.
  static Scheme parse(std::string_view name);

  kernels::Precision layer_precision(bool bias) const;
  kernels::Precision lm_head_precision() const;
};

}  // namespace flexllm::quantizer
