// The cycle model (kernels/model/) against the virtual time of the kernels' own source: one layer
// of several shapes, on the tops of the accelerator FLEXLLM_ACCELERATOR.
#include <gtest/gtest.h>

#include FLEXLLM_ACCELERATOR_HEADER

#include <string>
#include <vector>

#include "kernels/model/stages.h"
#include "kernels/tests/random_case.h"
#include "kernels/tops/csim.h"
#include "kernels/tops/timed_run.h"

namespace flexllm::kernels {
namespace {

namespace built = accelerator::FLEXLLM_ACCELERATOR;

struct TestedKernel {
  model::Kernel kernel;
  uint32_t (*run)(const twin::Buffers& buffers);
};

void add_ports(model::Kernel& kernel, const char* family, int count, int bits) {
  for (int i = 0; i < count; ++i) {
    kernel.ports.push_back({family + std::to_string(i), static_cast<uint32_t>(bits), {0}});
  }
}

// As `flexllm plan` reads a kernel. All banks sustain the same.
#define FLEXLLM_TESTED_KERNEL(name)                                                                \
  TestedKernel tested_##name() {                                                                   \
    namespace k = built::name;                                                                     \
    model::Kernel kernel{model::Stage::name, #name, k::clock_mhz, k::spatial, k::tp, k::bp, k::wp, \
                         k::heads,           k::kv, k::outputs,   {},         {},    {}};          \
    kernel.weight_banks.resize(built::weight_streams);                                             \
    kernel.kv_banks.resize(built::kv_streams);                                                     \
    add_ports(kernel, "w", k::weight_ports, k::weight_port_bits);                                  \
    add_ports(kernel, "kv", k::kv_ports, k::kv_port_bits);                                         \
    add_ports(kernel, "io", 1, 512);                                                               \
    add_ports(kernel, "scratch", 1, 512);                                                          \
    return {kernel, csim::run_##name};                                                             \
  }
FLEXLLM_TESTED_KERNEL(prefill)
FLEXLLM_TESTED_KERNEL(decode)

constexpr double kGbPerS = 13.0;  // of a memory bank
constexpr double kWithin = 0.02;

constexpr model::ModelShape kSmolLm{
    "smollm2-135m", 1, 576, 1536, 9, 3, 64, 512, {1, 1, false, false}, {1, 1, false, false}, 512};
constexpr model::ModelShape kLlama{
    "llama-3.2-1b", 1, 2048, 8192, 32, 8, 64, 512, {1, 1, false, false}, {1, 1, false, false}, 512};

// Cycles of a launch of one layer without outputs, by the model.
double planned(const TestedKernel& tested, const model::ModelShape& shape,
               const std::vector<SequenceRows>& sequences) {
  const model::Device device{"", {{"HBM[0]", 0, kGbPerS}}, 0, {}};
  const model::Rates rates = rates_of(device, tested.kernel);
  std::vector<model::SequenceRows> ranges;
  uint32_t rows = 0;
  for (const SequenceRows& sequence : sequences) {
    ranges.push_back({sequence.history, sequence.rows});
    rows += sequence.rows;
  }
  const model::RegionTime attention = attention_region(tested.kernel, rates, shape, ranges);
  const auto linear = [&](model::Matrix matrix) {
    return linear_region(tested.kernel, rates, shape, matrix, rows);
  };
  const model::RegionTime output = linear(model::Matrix::output);
  double cycles = input_region(rates, shape, rows).cycles + linear(model::Matrix::qkv).cycles +
                  linear(model::Matrix::gate_up).cycles + linear(model::Matrix::down).cycles +
                  hidden_region(rates, shape, 0).cycles;
  cycles += tested.kernel.spatial ? joined_region(attention, output).cycles
                                  : attention.cycles + output.cycles;
  return cycles;
}

simulation::Report simulated(const TestedKernel& tested, const model::ModelShape& planned_shape,
                             const std::vector<SequenceRows>& sequences) {
  ModelShape shape;
  shape.hidden = planned_shape.hidden;
  shape.ffn = planned_shape.ffn;
  shape.heads = planned_shape.heads;
  shape.kv_heads = planned_shape.kv_heads;
  shape.head_dim = planned_shape.head_dim;
  shape.vocab = planned_shape.vocab;
  shape.hadamard_block = planned_shape.hadamard_block;
  for (Precision* p : {&shape.qkv, &shape.o, &shape.gate_up, &shape.down}) {
    *p = planned_shape.linear;
  }
  for (const SequenceRows& sequence : sequences) {
    shape.context = std::max(shape.context, sequence.history + sequence.rows);
  }
  std::mt19937 random(7);
  Case given;
  build_model(random, shape, static_cast<uint32_t>(tested.kernel.weight_banks.size()), given);
  LaunchShape launch;
  launch.sequences = sequences;
  launch.outputs = false;
  launch.striped = true;
  build_launch(random, shape, launch, static_cast<uint32_t>(tested.kernel.kv_banks.size()), given);
  csim::CardPorts ports;
  const auto rate = [&](const char* name) {
    return csim::port_rate(tested.kernel.port(name).bits, kGbPerS, tested.kernel.clock_mhz);
  };
  ports.weight_ports = tested.kernel.weight_ports();
  ports.kv_ports = tested.kernel.kv_ports();
  ports.io = rate("io");
  ports.scratch = rate("scratch");
  ports.weights = rate("w");
  ports.kv = rate("kv");
  const csim::TimedRun run = csim::run_timed(tested.run, given.buffers(), ports);
  EXPECT_EQ(run.status, launch_status::ok);
  return run.report;
}

void compare(const TestedKernel& tested, const model::ModelShape& shape,
             const std::vector<SequenceRows>& sequences) {
  const simulation::Report report = simulated(tested, shape, sequences);
  const double cycles = planned(tested, shape, sequences);
  EXPECT_NEAR(cycles / static_cast<double>(report.cycles), 1.0, kWithin)
      << cycles << " planned, " << report.cycles << " in virtual time: " << [&] {
           std::string text;
           for (const simulation::RegionRun& run : report.regions) {
             if (run.level == 0)
               text += run.region + " " + std::to_string(run.end - run.begin) + " ";
           }
           return text;
         }();
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

}  // namespace
}  // namespace flexllm::kernels
