// The C simulation of whole launches against the fast twin: every byte of result, logits and pages.
#include <gtest/gtest.h>

#include <cstring>

#include "kernels/contract/numerics.h"
#include "kernels/hls/simulation.h"
#include "kernels/tests/test_shapes.h"

namespace flexllm::kernels {
namespace {

void expect_equal(const CardBuffer& expected, const CardBuffer& actual, size_t words,
                  const char* what) {
  for (size_t w = 0; w < words; ++w) {
    for (uint32_t f = 0; f < kFieldsPerWord; ++f) {
      ASSERT_EQ(expected[w].field[f], actual[w].field[f])
          << what << ", word " << w << ", field " << f << ": " << float_of(expected[w].field[f])
          << " and " << float_of(actual[w].field[f]);
    }
  }
}

// Runs both on copies of `given` and compares everything but the kernel's own work space.
template <typename K>
void compare(const Case& given, uint32_t (*simulate)(const twin::Buffers&)) {
  Case by_twin = given;
  Case by_simulation = given;
  const uint32_t status = twin::run(by_twin.buffers(), twin_maxima<K>());
  ASSERT_EQ(status, simulate(by_simulation.buffers()));
  ASSERT_EQ(status, launch_status::ok);
  expect_equal(by_twin.result, by_simulation.result, by_twin.result.size(), "result");
  for (size_t i = 0; i < by_twin.kv.size(); ++i) {
    expect_equal(by_twin.kv[i], by_simulation.kv[i], by_twin.kv[i].size(), "pages");
  }
  const uint32_t work = fields_at(by_twin.desc, 0)[launch_field::work];
  expect_equal(by_twin.scratch, by_simulation.scratch, work, "logits");
}

template <typename K>
void compare_random(uint32_t first_seed, uint32_t cases, uint32_t sequences,
                    uint32_t (*simulate)(const twin::Buffers&)) {
  for (uint32_t seed = first_seed; seed < first_seed + cases; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    compare<K>(random_case(seed, case_limits<K>(sequences), K::weight_streams, K::kv_streams),
               simulate);
    if (::testing::Test::HasFatalFailure()) return;
  }
}

TEST(Launch, DecodeEqualsTwinInConcurrentMode) {
  compare_random<SmallDecode>(1, 60, 16, run_small_decode);
}

TEST(Launch, PrefillEqualsTwinInConcurrentMode) {
  compare_random<SmallPrefill>(1001, 60, 4, run_small_prefill);
}

TEST(Launch, DecodeEqualsTwinInSequentialMode) {
  const simulation::Scope scope({.mode = simulation::Mode::sequential});
  compare_random<SmallDecode>(2001, 120, 16, run_small_decode);
}

TEST(Launch, PrefillEqualsTwinInSequentialMode) {
  const simulation::Scope scope({.mode = simulation::Mode::sequential});
  compare_random<SmallPrefill>(3001, 120, 4, run_small_prefill);
}

}  // namespace
}  // namespace flexllm::kernels
