// Rounding a float matrix to quantised rows: integers, one scale per row, multipliers per group.
// Pure functions; any thread may call them.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "kernels/contract/layout.h"

namespace flexllm::quantizer {

// One output row: w ~ scale * multipliers[i / 64] * q[i].
struct QuantizedRow {
  std::vector<int8_t> q;             // -8..7 or -128..127
  std::vector<uint8_t> multipliers;  // 1..63 per group; empty: all ones
  float scale = 0;                   // 0 for a row of zeros
  float weight_sum = 0;              // scale * sum multiplier * q, of docs/numerics.md
};

// Round to nearest with a range that minimises the squared error of the row (or of each group):
// the step is searched between 0.5 and 1 times the one that covers the largest magnitude.
QuantizedRow quantize_row(std::span<const float> weights, uint32_t bits, bool grouped);

// What the kernels compute with.
std::vector<float> dequantize_row(const QuantizedRow& row);

}  // namespace flexllm::quantizer
