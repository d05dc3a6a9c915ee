// The fast twins on one layer of the default model's shape (SmolLM2-135M), and on its lm_head.
// Arguments: instruction set, weight planes, rows, history of every sequence. The counter is rows
// of one layer (or of lm_head) per second.
#include <benchmark/benchmark.h>

#include <random>

#include "kernels/tests/random_case.h"
#include "kernels/twin/twin.h"

namespace flexllm::kernels {
namespace {

ModelShape default_shape(uint32_t weight_planes, uint32_t vocab) {
  const Precision precision{weight_planes, 2, weight_planes == 1, false};
  ModelShape shape;
  shape.hidden = 576;
  shape.heads = 9;
  shape.kv_heads = 3;
  shape.head_dim = 64;
  shape.ffn = 1536;
  shape.vocab = vocab;
  shape.context = 2304;
  shape.hadamard_block = 512;
  shape.qkv = shape.o = shape.gate_up = shape.down = shape.lm_head = precision;
  return shape;
}

void run(benchmark::State& state, const ModelShape& shape, const LaunchShape& launch) {
  const auto isa = static_cast<twin::Isa>(state.range(0));
  if (isa > twin::best_isa()) {
    state.SkipWithError("this processor lacks the instruction set");
    return;
  }
  std::mt19937 random(1);
  Case input;
  build_model(random, shape, 16, input);
  build_launch(random, shape, launch, 4, input);
  const twin::Buffers buffers = input.buffers();
  for (auto _ : state) {
    if (twin::run(buffers, kCombinedMaxima, isa) != launch_status::ok)
      state.SkipWithError("refused");
  }
  state.SetLabel(to_string(isa));
  int64_t rows = 0;
  for (const SequenceRows& sequence : launch.sequences) rows += sequence.rows;
  state.SetItemsProcessed(state.iterations() * rows);
}

// One row of each of `rows` sequences.
void layer_decode(benchmark::State& state) {
  LaunchShape launch;
  launch.outputs = false;
  const auto history = static_cast<uint32_t>(state.range(3));
  launch.sequences.assign(static_cast<size_t>(state.range(2)), {history, 1});
  run(state, default_shape(static_cast<uint32_t>(state.range(1)), 32), launch);
}

// `rows` rows of one sequence.
void layer_prefill(benchmark::State& state) {
  LaunchShape launch;
  launch.outputs = false;
  launch.sequences = {
      {static_cast<uint32_t>(state.range(3)), static_cast<uint32_t>(state.range(2))}};
  run(state, default_shape(static_cast<uint32_t>(state.range(1)), 32), launch);
}

// No layer; every row asks for its row result or a target.
void lm_head(benchmark::State& state) {
  LaunchShape launch;
  launch.layer_end = 0;
  launch.sequences.assign(static_cast<size_t>(state.range(2)), {0, 1});
  run(state, default_shape(static_cast<uint32_t>(state.range(1)), 49152), launch);
}

void arguments(benchmark::internal::Benchmark* b, const std::vector<int64_t>& rows,
               const std::vector<int64_t>& histories) {
  b->ArgNames({"isa", "planes", "rows", "history"})
      ->ArgsProduct({{0, 1, 2}, {1, 2}, rows, histories})
      ->Unit(benchmark::kMicrosecond)
      ->UseRealTime();
}

BENCHMARK(layer_decode)->Apply([](auto* b) { arguments(b, {1, 8}, {0, 2000}); });
BENCHMARK(layer_prefill)->Apply([](auto* b) { arguments(b, {128}, {0, 1024}); });
BENCHMARK(lm_head)->Apply([](auto* b) { arguments(b, {1, 8}, {0}); });

}  // namespace
}  // namespace flexllm::kernels
