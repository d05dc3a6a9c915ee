// Functions behind the table, in the namespace of the instruction set being compiled.
#pragma once

#include "kernels/twin/isa/ops.h"

namespace flexllm::kernels::twin::FLEXLLM_ISA {

void linear_tile(const Tile& tile, const Activations& x, float* y, size_t stride);
void attention(const AttentionHead& head);
void rms_norm(const float* x, const float* gain, uint32_t n, float eps, float* y);
AsymmetricScale quantize(const float* x, uint32_t n, const ActivationGrid& grid, uint8_t* q,
                         int32_t* group_sums);
float quantize_head(const float* x, uint32_t n, uint32_t padded, int8_t* q);
void rope(float* x, const float* table, uint32_t head_dim);
void silu_gate(const float* gate, const float* up, uint32_t n, float* y);
void hadamard(float* y, uint32_t n, uint32_t block, float scale);
void add(float* x, const float* y, uint32_t n);
float sum_exp(const float* x, uint32_t n, float max);

}  // namespace flexllm::kernels::twin::FLEXLLM_ISA
