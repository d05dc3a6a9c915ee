// Whole launches in virtual time: the bits stay those of the twin, every run takes the same cycles,
// and the ports move what the layouts say.
#include <gtest/gtest.h>

#include <string>

#include "kernels/tests/compare.h"
#include "kernels/tests/test_shapes.h"
#include "kernels/tops/timed_run.h"

namespace flexllm::kernels {
namespace {

csim::CardPorts ports_of(uint32_t weight_ports, uint32_t kv_ports) {
  csim::CardPorts ports;
  ports.weight_ports = weight_ports;
  ports.kv_ports = kv_ports;
  ports.weights = csim::port_rate(256, 14.4, 300);
  ports.kv = csim::port_rate(512, 14.4, 300);
  return ports;
}

simulation::Report last_report;

uint32_t timed_decode(const twin::Buffers& buffers) {
  const auto run = csim::run_timed(run_small_decode, buffers,
                                   ports_of(SmallDecode::weight_ports, SmallDecode::kv_ports));
  last_report = run.report;
  return run.status;
}

uint32_t timed_prefill(const twin::Buffers& buffers) {
  const auto run = csim::run_timed(run_small_prefill, buffers,
                                   ports_of(SmallPrefill::weight_ports, SmallPrefill::kv_ports));
  last_report = run.report;
  return run.status;
}

TEST(PortRate, IsTheNarrowerOfWidthAndChannel) {
  EXPECT_DOUBLE_EQ(csim::port_rate(256, 14.4, 300), 32);
  EXPECT_DOUBLE_EQ(csim::port_rate(512, 14.4, 300), 48);
  EXPECT_DOUBLE_EQ(csim::port_rate(512, 14.4, 450), 32);
}

void repeat(const Case& given, const twin::Maxima& maxima, Kernel kernel) {
  std::string first;
  for (int i = 0; i < 5; ++i) {
    compare_with_twin(given, maxima, kernel);
    const std::string json = to_json(last_report);
    if (i == 0) first = json;
    ASSERT_EQ(json, first);
  }
  EXPECT_GT(last_report.cycles, 1000u);
  EXPECT_FALSE(last_report.regions.empty());
  // Regions of the launch run one after the other and fill its time.
  uint64_t at = 0;
  for (const simulation::RegionRun& run : last_report.regions) {
    for (const simulation::StreamUse& use : run.streams) {
      EXPECT_LE(use.most_held, use.depth) << use.region << " " << use.stream;
    }
    if (run.level != 0) continue;
    EXPECT_GE(run.begin, at);
    at = run.end;
  }
  EXPECT_LE(at, last_report.cycles);
  // Weights are read at most once, and read at all.
  uint64_t words = 0, arenas = 0;
  for (const simulation::PortUse& port : last_report.ports) {
    if (port.name[0] == 'w') words += port.read.words;
  }
  for (const CardBuffer& arena : given.weights) arenas += arena.size();
  EXPECT_GT(words, 0u);
  EXPECT_LE(words, arenas);
  for (const simulation::TaskTime& task : last_report.tasks) {
    EXPECT_LE(task.busy(), task.cycles) << task.region << " " << task.task;
  }
}

TEST(TimedLaunch, DecodeTakesTheSameCyclesInEveryRun) {
  for (uint32_t seed = 51; seed < 55; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    repeat(random_case(seed, case_limits<SmallDecode>(8), SmallDecode::weight_streams,
                       SmallDecode::kv_streams),
           twin_maxima<SmallDecode>(), timed_decode);
  }
}

TEST(TimedLaunch, PrefillTakesTheSameCyclesInEveryRun) {
  for (uint32_t seed = 1051; seed < 1055; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    repeat(random_case(seed, case_limits<SmallPrefill>(4), SmallPrefill::weight_streams,
                       SmallPrefill::kv_streams),
           twin_maxima<SmallPrefill>(), timed_prefill);
  }
}

}  // namespace
}  // namespace flexllm::kernels
