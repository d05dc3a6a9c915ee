// One adder that adds or subtracts. C++14.
#pragma once

#include <cstdint>

#include "kernels/contract/numerics.h"

namespace flexllm {
namespace kernels {

// a - b or a + b: the sign of b is turned, so that one adder does either.
inline float add_or_subtract(float a, float b, bool subtract) {
  return a + float_of(bits_of(b) ^ (subtract ? 0x80000000u : 0u));
}

}  // namespace kernels
}  // namespace flexllm
