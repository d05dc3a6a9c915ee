// The kernels of u280-combined, through their top functions, on one layer of the default model's
// shape (d 576, 9 query and 3 KV heads of 64, feed-forward 1536) and a slice of its vocabulary.
#include <gtest/gtest.h>

#include "kernels/hls/simulation.h"
#include "kernels/tests/compare.h"
#include "kernels/tops/csim.h"

namespace flexllm::kernels {
namespace {

constexpr uint32_t kWeightStreams = 16;
constexpr uint32_t kKvStreams = 8;
ModelShape default_layer() {
  ModelShape shape;
  shape.hidden = 576;
  shape.heads = 9;
  shape.kv_heads = 3;
  shape.head_dim = 64;
  shape.ffn = 1536;
  shape.vocab = 1000;
  shape.context = 200;
  shape.hadamard_block = 512;
  for (Precision* p : {&shape.qkv, &shape.o, &shape.gate_up, &shape.down}) {
    *p = Precision{1, 1, true, false};
  }
  shape.lm_head = Precision{2, 2, false, false};
  return shape;
}

void run_layer(const std::vector<SequenceRows>& sequences, Kernel kernel, uint32_t rows) {
  std::mt19937 random(576);
  const ModelShape shape = default_layer();
  Case given;
  build_model(random, shape, kWeightStreams, given);
  LaunchShape launch;
  launch.sequences = sequences;
  launch.interleave = true;
  build_launch(random, shape, launch, kKvStreams, given);
  twin::Maxima maxima = kCombinedMaxima;
  maxima.rows = rows;
  compare_with_twin(given, maxima, kernel);
}

TEST(DefaultLayer, Decode) {
  run_layer({{0, 1}, {31, 1}, {32, 1}, {100, 2}, {64, 1}}, csim::run_decode, 16);
}

TEST(DefaultLayer, Prefill) { run_layer({{0, 33}, {40, 4}}, csim::run_prefill, 256); }

TEST(DefaultLayer, SequentialModeGivesTheSame) {
  const simulation::Scope scope({.mode = simulation::Mode::sequential});
  run_layer({{16, 1}, {95, 1}}, csim::run_decode, 16);
  run_layer({{15, 17}}, csim::run_prefill, 256);
}

TEST(Tops, RefuseAnotherNumberOfArenas) {
  CaseLimits limits;
  Case given = random_case(1, limits, kWeightStreams - 1, kKvStreams);
  for (const Kernel kernel : {csim::run_decode, csim::run_prefill}) {
    EXPECT_EQ(kernel(given.buffers()), launch_status::beyond_maxima);
    const uint32_t* record = fields_at(given.result, 0);
    EXPECT_EQ(record[completion_field::magic], kResultMagic);
    EXPECT_EQ(record[completion_field::id], fields_at(given.desc, 0)[launch_field::id]);
    EXPECT_EQ(record[completion_field::status], launch_status::beyond_maxima);
    EXPECT_EQ(record[completion_field::rows], 0u);
  }
}

}  // namespace
}  // namespace flexllm::kernels
