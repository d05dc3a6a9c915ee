// What the tests of the modules share beside testbench.h: comparison and references. A stream
// that is made outside a dataflow region is unbounded, so a module is driven by plain calls.
// Compiles with plain types and with AMD's.
#pragma once

#include <gtest/gtest.h>

#include <vector>

#include "kernels/testbench/testbench.h"

namespace flexllm::kernels {

inline void expect_same_bits(const Floats& expected, const Floats& actual) {
  ASSERT_EQ(expected.size(), actual.size());
  for (size_t i = 0; i < expected.size(); ++i) {
    ASSERT_EQ(bits_of(expected[i]), bits_of(actual[i])) << "element " << i;
  }
}

// vsum of docs/numerics.md, section 1, as its text says.
template <typename Term>
float vector_sum(uint32_t size, const Term& term) {
  std::vector<float> p(64, 0.0f);
  for (uint32_t i = 0; i < size; ++i) p[i % 64] = p[i % 64] + term(i);
  for (uint32_t h = 32; h > 0; h /= 2) {
    for (uint32_t j = 0; j < h; ++j) p[j] = p[j] + p[j + h];
  }
  return p[0];
}

inline Floats reference_norm(const Floats& x, const Floats& gain, float eps) {
  const auto n = static_cast<uint32_t>(x.size());
  const float ms = vector_sum(n, [&](uint32_t i) { return x[i] * x[i]; }) / static_cast<float>(n);
  const float r = reciprocal_sqrt(ms + eps);
  Floats y(n);
  for (uint32_t i = 0; i < n; ++i) {
    const float scaled = x[i] * r;
    y[i] = scaled * gain[i];
  }
  return y;
}

constexpr uint32_t kOddSizes[] = {4, 12, 16, 20, 60, 64, 68, 172, 192, 256};

}  // namespace flexllm::kernels
