#include "quantizer/algebra/hadamard.h"

#include <bit>
#include <stdexcept>

namespace flexllm::quantizer {

template <typename T>
void walsh_hadamard(std::span<T> values, size_t block, T scale) {
  if (!std::has_single_bit(block) || values.size() % block != 0) {
    throw std::invalid_argument("a Hadamard block must be a power of two that divides the size");
  }
  for (size_t h = 1; h < block; h *= 2) {
    for (size_t begin = 0; begin < values.size(); begin += 2 * h) {
      T* left = values.data() + begin;
      T* right = left + h;
      for (size_t i = 0; i < h; ++i) {
        const T a = left[i];
        const T b = right[i];
        left[i] = a + b;
        right[i] = a - b;
      }
    }
  }
  for (T& value : values) value *= scale;
}

template void walsh_hadamard(std::span<float>, size_t, float);
template void walsh_hadamard(std::span<double>, size_t, double);

}  // namespace flexllm::quantizer
