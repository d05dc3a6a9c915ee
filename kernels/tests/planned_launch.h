// A launch by the cycle model (kernels/model/) and in virtual time, on the tops of the accelerator
// FLEXLLM_ACCELERATOR, whose header is FLEXLLM_ACCELERATOR_HEADER. One thread.
#pragma once

#include <gtest/gtest.h>

#include FLEXLLM_ACCELERATOR_HEADER

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "kernels/model/stages.h"
#include "kernels/tests/random_case.h"
#include "kernels/tops/csim.h"
#include "kernels/tops/timed_run.h"

namespace flexllm::kernels {

namespace built = accelerator::FLEXLLM_ACCELERATOR;

inline void add_ports(model::Kernel& kernel, const char* family, int count, int bits) {
  for (int i = 0; i < count; ++i) {
    std::string name = family;
    name += std::to_string(i);
    kernel.ports.push_back({std::move(name), static_cast<uint32_t>(bits), {0}});
  }
}

// A kernel of an accelerator's header as `flexllm plan` reads it: `function` returns it. All banks
// sustain the same.
#define FLEXLLM_PLANNED_KERNEL(function, accelerator, which)      \
  inline model::Kernel function() {                               \
    namespace k = accelerator::which;                             \
    model::Kernel kernel{};                                       \
    kernel.stage = model::Stage::which;                           \
    kernel.name = #which;                                         \
    kernel.clock_mhz = k::clock_mhz;                              \
    kernel.spatial = k::spatial;                                  \
    kernel.tp = k::tp;                                            \
    kernel.bp = k::bp;                                            \
    kernel.wp = k::wp;                                            \
    kernel.heads = k::heads;                                      \
    kernel.kv = k::kv;                                            \
    kernel.outputs = k::outputs;                                  \
    kernel.panel = k::panel;                                      \
    kernel.weight_banks.resize(accelerator::weight_streams);      \
    kernel.kv_banks.resize(accelerator::kv_streams);              \
    add_ports(kernel, "w", k::weight_ports, k::weight_port_bits); \
    add_ports(kernel, "kv", k::kv_ports, k::kv_port_bits);        \
    add_ports(kernel, "io", 1, 512);                              \
    add_ports(kernel, "scratch", 1, 512);                         \
    return kernel;                                                \
  }
FLEXLLM_PLANNED_KERNEL(built_prefill, built, prefill)
FLEXLLM_PLANNED_KERNEL(built_decode, built, decode)

// A kernel to the model, and its simulation.
struct TestedKernel {
  model::Kernel kernel;
  uint32_t (*run)(const twin::Buffers& buffers);
};
inline TestedKernel tested_prefill() { return {built_prefill(), csim::run_prefill}; }
inline TestedKernel tested_decode() { return {built_decode(), csim::run_decode}; }

constexpr double kGbPerS = 13.0;  // of a memory bank

// Cycles of a launch of one layer. The last `result_rows` rows have results.
struct LaunchCycles {
  double all = 0;
  double lm_head = 0;
  double results = 0;
};

// By the model.
inline LaunchCycles planned(const model::Kernel& kernel, const model::ModelShape& shape,
                            const std::vector<SequenceRows>& sequences, uint32_t result_rows) {
  const model::Device device{"", {{"HBM[0]", 0, kGbPerS}}, 0, {}};
  const model::Rates rates = rates_of(device, kernel);
  std::vector<model::SequenceRows> ranges;
  uint32_t rows = 0;
  for (const SequenceRows& sequence : sequences) {
    ranges.push_back({sequence.history, sequence.rows});
    rows += sequence.rows;
  }
  const auto linear = [&](model::Matrix matrix, uint32_t some) {
    const Precision& precision =
        matrix == model::Matrix::lm_head ? shape.lm_head : shape.shares(matrix).front().precision;
    return linear_region(kernel, rates, shape, matrix, precision, some);
  };
  const model::RegionTime attention = attention_region(kernel, rates, shape, ranges);
  const model::RegionTime output = linear(model::Matrix::output, rows);
  LaunchCycles cycles;
  cycles.all = input_region(rates, shape, rows).cycles + linear(model::Matrix::qkv, rows).cycles +
               linear(model::Matrix::gate_up, rows).cycles +
               linear(model::Matrix::down, rows).cycles + hidden_region(rates, shape, 0).cycles;
  cycles.all +=
      kernel.spatial ? joined_region(attention, output).cycles : attention.cycles + output.cycles;
  if (result_rows > 0) {
    cycles.lm_head = linear(model::Matrix::lm_head, result_rows).cycles;
    cycles.results = result_region(kernel, rates, shape, result_rows).cycles;
    cycles.all += cycles.lm_head + cycles.results;
  }
  return cycles;
}

// A launch of that shape with random parameters and rows.
inline Case drawn_launch(const TestedKernel& tested, const model::ModelShape& planned_shape,
                         const std::vector<SequenceRows>& sequences, uint32_t result_rows) {
  ModelShape shape;
  shape.hidden = planned_shape.hidden;
  shape.ffn = planned_shape.ffn;
  shape.heads = planned_shape.heads;
  shape.kv_heads = planned_shape.kv_heads;
  shape.head_dim = planned_shape.head_dim;
  shape.vocab = planned_shape.vocab;
  shape.hadamard_block = planned_shape.hadamard_block;
  Precision* const precisions[] = {&shape.qkv, &shape.o, &shape.gate_up, &shape.down};
  for (const model::Matrix matrix : model::kLayerMatrices) {
    *precisions[static_cast<size_t>(matrix)] = planned_shape.shares(matrix).front().precision;
  }
  shape.lm_head = planned_shape.lm_head;
  for (const SequenceRows& sequence : sequences) {
    shape.context = std::max(shape.context, sequence.history + sequence.rows);
  }
  std::mt19937 random(7);
  Case given;
  build_model(random, shape, static_cast<uint32_t>(tested.kernel.weight_banks.size()), given);
  LaunchShape launch;
  launch.sequences = sequences;
  launch.outputs = false;
  launch.result_rows = result_rows;
  launch.striped = true;
  build_launch(random, shape, launch, static_cast<uint32_t>(tested.kernel.kv_banks.size()), given);
  return given;
}

// In virtual time.
inline LaunchCycles simulated(const TestedKernel& tested, Case& given, std::string& regions) {
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
  LaunchCycles cycles;
  cycles.all = static_cast<double>(run.report.cycles);
  uint64_t before_took = 0;
  for (const simulation::RegionRun& region : run.report.regions) {
    if (region.level != 0) continue;
    const uint64_t took = region.end - region.begin;
    regions += region.region + " " + std::to_string(took) + " ";
    // lm_head is the last matrix, in front of the hidden rows.
    if (region.region == "run_hidden_outputs") cycles.lm_head = static_cast<double>(before_took);
    if (region.region == "run_row_results") cycles.results = static_cast<double>(took);
    before_took = took;
  }
  return cycles;
}

}  // namespace flexllm::kernels
