// The cycle model (kernels/model/) against the virtual time of the kernels' own source: one layer
// of several shapes, on the tops of the accelerator FLEXLLM_ACCELERATOR.
#include <gtest/gtest.h>

#include "kernels/tests/planned_launch.h"

namespace flexllm::kernels {
namespace {

constexpr double kWithin = 0.02;

constexpr Precision kW4A4{1, 1, false, false};

const model::ModelShape kSmolLm{
    "smollm2-135m", 1, 576, 1536, 9, 3, 64, 49152, model::uniform_precisions(1, kW4A4), kW4A4, 512};
const model::ModelShape kLlama{
    "llama-3.2-1b", 1, 2048, 8192, 32, 8, 64, 512, model::uniform_precisions(1, kW4A4), kW4A4, 512};

// Each matrix of a layer with a precision of its own.
model::ModelShape mixed(model::ModelShape shape) {
  shape.linears = {{{{{2, 2, true, false}, 1}},
                    {{{1, 2, false, false}, 1}},
                    {{{1, 2, true, false}, 1}},
                    {{{2, 2, false, false}, 1}}}};
  return shape;
}

void compare(const TestedKernel& tested, const model::ModelShape& shape,
             const std::vector<SequenceRows>& sequences, uint32_t result_rows = 0) {
  Case given = drawn_launch(tested, shape, sequences, result_rows);
  std::string regions;
  const LaunchCycles timed = simulated(tested, given, regions);
  const LaunchCycles plan = planned(tested.kernel, shape, sequences, result_rows);
  SCOPED_TRACE(regions);
  EXPECT_NEAR(plan.all / timed.all, 1.0, kWithin) << plan.all << " planned";
  if (result_rows == 0) return;
  EXPECT_NEAR(plan.lm_head / timed.lm_head, 1.0, kWithin)
      << plan.lm_head << " planned, " << timed.lm_head << " in virtual time";
  EXPECT_NEAR(plan.results / timed.results, 1.0, kWithin)
      << plan.results << " planned, " << timed.results << " in virtual time";
}

const std::vector<SequenceRows> kEight = {{700, 1}, {710, 1}, {720, 1}, {730, 1},
                                          {740, 1}, {750, 1}, {760, 1}, {780, 1}};

TEST(CycleModel, Decode) {
  compare(tested_decode(), kLlama, {{1535, 1}});
  compare(tested_decode(), kLlama, {{200, 1}});
  compare(tested_decode(), kLlama, kEight);
}

TEST(CycleModel, Prefill) {
  compare(tested_prefill(), kLlama, {{256, 256}});
  compare(tested_prefill(), kSmolLm, {{128, 128}});
  compare(tested_prefill(), kSmolLm, {{40, 100}, {0, 120}});
}

TEST(CycleModel, MixedPrecision) {
  compare(tested_decode(), mixed(kLlama), kEight);
  compare(tested_decode(), mixed(kSmolLm), {{200, 1}});
  compare(tested_prefill(), mixed(kSmolLm), {{128, 128}});
}

TEST(CycleModel, LogitsAndRowResults) {
  compare(tested_decode(), kSmolLm, {{200, 1}}, 1);
  compare(tested_decode(), kSmolLm, kEight, 8);
  compare(tested_prefill(), kSmolLm, {{0, 128}}, 1);
}

}  // namespace
}  // namespace flexllm::kernels
