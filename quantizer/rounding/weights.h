// Rounding a float matrix to quantised rows: integers, one scale per row, multipliers per group.
// Pure functions; any thread may call them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "kernels/contract/layout.h"

namespace flexllm::quantizer {

// One output row: w ~ step(i) * q[i].
struct QuantizedRow {
  std::vector<int8_t> q;             // -8..7 or -128..127
  std::vector<uint8_t> multipliers;  // 1..63 per group; empty: all ones
  float scale = 0;                   // 0 for a row of zeros
  float weight_sum = 0;              // scale * sum multiplier * q, of docs/numerics.md

  // What q of input i counts.
  double step(size_t input) const {
    return multipliers.empty() ? double{scale}
                               : double{scale} * multipliers[input / kernels::kGroupInputs];
  }
};

// Scale and multipliers of a row, with q and weight_sum still to come. The range of the row (or of
// each group) minimises the squared error of rounding to nearest, weighted input by input with
// `importance` (none: all alike): the step is searched between 0.5 and 1 times the one that covers
// the largest magnitude.
QuantizedRow choose_scales(std::span<const float> weights, uint32_t bits, bool grouped,
                           std::span<const float> importance = {});

// The integer nearest to w / step that `bits` hold; 0 for a step of 0.
int8_t round_weight(double w, double step, uint32_t bits);

// Fills weight_sum from the rest of the row.
void set_weight_sum(QuantizedRow& row);

// Round to nearest with the scales of choose_scales().
QuantizedRow quantize_row(std::span<const float> weights, uint32_t bits, bool grouped,
                          std::span<const float> importance = {});

// What the kernels compute with.
std::vector<float> dequantize_row(const QuantizedRow& row);

}  // namespace flexllm::quantizer
