// What the rows of a launch ask for, written to the result buffer (docs/numerics.md, section 7).
#pragma once

#include "kernels/twin/layers.h"

namespace flexllm::kernels::twin {

// `x` holds the residual of every launch row after the last layer.
void write_outputs(const LaunchView& launch, const Ops& ops, const Rows& x);

}  // namespace flexllm::kernels::twin
