// One number changed in an accelerator's JSON: kernels made from it run random launches as the twin
// does, bit for bit, and their cycles are those that the cycle model says of the new numbers.
#include <gtest/gtest.h>

#include "accelerators/variant_as_it_is.h"
#include "kernels/tests/compare.h"
#include "kernels/tests/planned_launch.h"

namespace flexllm::kernels {
namespace {

namespace base = accelerator::variant_as_it_is;
FLEXLLM_PLANNED_KERNEL(base_prefill, base, prefill)
FLEXLLM_PLANNED_KERNEL(base_decode, base, decode)

namespace maxima = built::maxima;

constexpr double kWithin = 0.05;  // launches this small are latency in good part

twin::Maxima twin_maxima(uint32_t rows) {
  return twin::Maxima{.rows = rows,
                      .hidden = maxima::d,
                      .ffn = maxima::ffn,
                      .heads = maxima::heads,
                      .kv_heads = maxima::kv_heads,
                      .head_dim = maxima::head_dim,
                      .context = maxima::context,
                      .vocab = maxima::vocabulary};
}

void compare_random(uint32_t first_seed, uint32_t rows, Kernel kernel) {
  CaseLimits limits;
  limits.rows = rows;
  limits.hidden = maxima::d;
  limits.ffn = maxima::ffn;
  limits.heads = maxima::heads;
  limits.kv_heads = maxima::kv_heads;
  limits.head_dim = maxima::head_dim;
  limits.layers = 1;
  limits.context = maxima::context;
  limits.vocab = maxima::vocabulary;
  for (uint32_t seed = first_seed; seed < first_seed + 12; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    compare_with_twin(random_case(seed, limits, built::weight_streams, built::kv_streams),
                      twin_maxima(rows), kernel);
    if (::testing::Test::HasFatalFailure()) return;
  }
}

TEST(Variant, PrefillEqualsTwin) { compare_random(1, maxima::prefill_rows, csim::run_prefill); }

TEST(Variant, DecodeEqualsTwin) { compare_random(101, maxima::batch, csim::run_decode); }

// All heads and elements that the kernels are built for.
const model::ModelShape kLargest{"largest",
                                 1,
                                 maxima::d,
                                 maxima::ffn,
                                 maxima::heads,
                                 maxima::kv_heads,
                                 maxima::head_dim,
                                 maxima::vocabulary,
                                 model::uniform_precisions(1, {1, 1, false, false}),
                                 {1, 1, false, false},
                                 512};

// Bits and cycles of a launch, and how its cycles differ from those before the change.
void compare(const TestedKernel& tested, const model::Kernel& before, uint32_t most_rows,
             const std::vector<SequenceRows>& sequences) {
  Case given = drawn_launch(tested, kLargest, sequences, 0);
  compare_with_twin(given, twin_maxima(most_rows), tested.run);
  std::string regions;
  const double timed = simulated(tested, given, regions).all;
  const double plan = planned(tested.kernel, kLargest, sequences, 0).all;
  EXPECT_NEAR(plan / timed, 1.0, kWithin) << plan << " planned, " << timed << ": " << regions;
  const double plan_before = planned(before, kLargest, sequences, 0).all;
  if (FLEXLLM_VARIANT_IS_FASTER) {
    EXPECT_LT(timed, 0.9 * plan_before) << plan_before << " planned before";
  } else {
    EXPECT_NEAR(timed / plan_before, 1.0, kWithin) << plan_before << " planned before";
  }
}

TEST(Variant, PrefillTakesThePlannedCycles) {
  const uint32_t rows = maxima::prefill_rows;
  compare(tested_prefill(), base_prefill(), rows, {{100, rows}});
  compare(tested_prefill(), base_prefill(), rows, {{maxima::context - rows, rows}});
}

TEST(Variant, DecodeTakesThePlannedCycles) {
  compare(
      tested_decode(), base_decode(), maxima::batch,
      {{200, 1}, {150, 1}, {100, 1}, {50, 1}, {0, 1}, {31, 1}, {32, 1}, {maxima::context - 1, 1}});
}

}  // namespace
}  // namespace flexllm::kernels
