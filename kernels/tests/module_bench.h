// What the tests of the modules share beside the testbenches' headers: comparison, and sizes. A
// stream that is made outside a dataflow region is unbounded, so a module is driven by plain calls.
// Compiles with plain types and with AMD's.
#pragma once

#include <gtest/gtest.h>

#include <vector>

#include "kernels/testbench/references.h"

namespace flexllm::kernels {

inline void expect_same_bits(const Floats& expected, const Floats& actual) {
  ASSERT_EQ(expected.size(), actual.size());
  for (size_t i = 0; i < expected.size(); ++i) {
    ASSERT_EQ(bits_of(expected[i]), bits_of(actual[i])) << "element " << i;
  }
}

constexpr uint32_t kOddSizes[] = {4, 12, 16, 20, 60, 64, 68, 172, 192, 256};

}  // namespace flexllm::kernels
