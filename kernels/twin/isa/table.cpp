#include "kernels/twin/isa/functions.h"

namespace flexllm::kernels::twin::FLEXLLM_ISA {

const Ops kOps{
    .linear_tile = linear_tile,
    .attention = attention,
    .rms_norm = rms_norm,
    .quantize = quantize,
    .quantize_head = quantize_head,
    .rope = rope,
    .silu_gate = silu_gate,
    .hadamard = hadamard,
    .add = add,
    .sum_exp = sum_exp,
};

}  // namespace flexllm::kernels::twin::FLEXLLM_ISA
