// Private to this folder: what happens to one row between products, in the order of operations of
// docs/numerics.md. Pure functions of their rows; any thread.
#pragma once

#include <cstdint>
#include <span>

#include "kernels/contract/layout.h"

namespace flexllm::quantizer {

// RMSNorm, section 2. `out` may be `x`.
void rms_norm(std::span<const float> x, std::span<const float> gain, float eps,
              std::span<float> out);

// gate = silu(gate) * up.
void silu_times(std::span<float> gate, std::span<const float> up);

// Section 3: to the numbers of the grid and back, in place.
void round_asymmetric(std::span<float> row, const kernels::ActivationGrid& grid);

// Section 3: to INT8, in place, as integers; returns the scale.
float round_symmetric(std::span<float> vector);

// Section 5, step 2: RoPE of one head, half-split.
void rotate_head(std::span<float> head, std::span<const float> cosines,
                 std::span<const float> sines);

// The largest of the values, -infinity of none; NaN is ignored.
float largest_of(std::span<const float> values);

// The vsum of section 1.
float sum_of(std::span<const float> values);

// The sum of exp(values - largest).
double sum_of_exponentials(std::span<const float> values, float largest);

}  // namespace flexllm::quantizer
