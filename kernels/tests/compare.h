// Two executions of a launch on the same buffers: every byte of result, logits and pages.
#pragma once

#include <gtest/gtest.h>

#include "kernels/contract/numerics.h"
#include "kernels/tests/random_case.h"

namespace flexllm::kernels {

using Kernel = uint32_t (*)(const twin::Buffers&);

inline void expect_equal(const CardBuffer& expected, const CardBuffer& actual, size_t words,
                         const char* what) {
  for (size_t w = 0; w < words; ++w) {
    for (uint32_t f = 0; f < kFieldsPerWord; ++f) {
      ASSERT_EQ(expected[w].field[f], actual[w].field[f])
          << what << ", word " << w << ", field " << f << ": " << float_of(expected[w].field[f])
          << " and " << float_of(actual[w].field[f]);
    }
  }
}

// Runs the twin and a simulated kernel on copies of `given` and compares everything but the work
// space, which is the kernel's own.
inline void compare_with_twin(const Case& given, const twin::Maxima& maxima, Kernel simulate,
                              uint32_t expected_status = launch_status::ok) {
  Case by_twin = given;
  Case by_simulation = given;
  ASSERT_EQ(twin::run(by_twin.buffers(), maxima), expected_status);
  ASSERT_EQ(simulate(by_simulation.buffers()), expected_status);
  expect_equal(by_twin.result, by_simulation.result, by_twin.result.size(), "result");
  for (size_t i = 0; i < by_twin.kv.size(); ++i) {
    expect_equal(by_twin.kv[i], by_simulation.kv[i], by_twin.kv[i].size(), "pages");
  }
  const size_t work = fields_at(by_twin.desc, 0)[launch_field::work];
  expect_equal(by_twin.scratch, by_simulation.scratch,
               expected_status == launch_status::ok ? work : by_twin.scratch.size(), "scratch");
}

}  // namespace flexllm::kernels
