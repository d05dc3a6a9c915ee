// The fast Walsh-Hadamard transform, block by block, as docs/numerics.md, section 6, defines it:
// natural order, stages h = 1, 2, 4, ..., then one multiplication. Any thread.
#pragma once

#include <cstddef>
#include <span>

namespace flexllm::quantizer {

// In place. `block` is a power of two that divides the size, else std::invalid_argument. With scale
// = 1 / sqrt(block) the transform is orthogonal and its own inverse. T is float or double.
template <typename T>
void walsh_hadamard(std::span<T> values, size_t block, T scale);

}  // namespace flexllm::quantizer
