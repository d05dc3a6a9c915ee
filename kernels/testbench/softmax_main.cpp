// Testbench of softmax_top: random scores and V scales, in 8 and in 16 bits, against the formula.
#include "kernels/testbench/engine.h"

using namespace flexllm::kernels;

extern "C" void softmax_top(ModelInfo info, Stream<BenchCommand>& commands,
                            Stream<SoftmaxLevels<BenchEngine::lanes>>& levels,
                            Stream<LaneFloats<BenchEngine::lanes>>& scores,
                            Stream<LaneFloats<BenchEngine::pairs>>& value_scales,
                            Stream<Numerators<BenchEngine::lanes>>& numerators,
                            Stream<LaneSums<BenchEngine::lanes>>& denominators);

static void run(uint32_t pages, uint32_t levels_of_model, std::mt19937& random,
                Differences& differences) {
  EngineBlock block = random_block(random, pages, pages);
  block.info.probability_levels = levels_of_model;
  const auto top = static_cast<float>(levels_of_model);
  Queue<BenchCommand> commands;
  Queue<SoftmaxLevels<BenchEngine::lanes>> levels;
  Queue<LaneFloats<BenchEngine::lanes>> scores;
  Queue<LaneFloats<BenchEngine::pairs>> value_scales;
  Queue<Numerators<BenchEngine::lanes>> numerators;
  Queue<LaneSums<BenchEngine::lanes>> denominators;
  commands.write(block.begin());
  block.send_pages(true, commands);
  commands.write(EngineBlock::end(kEndOfPass, false));
  commands.write(EngineBlock::end(kEndOfBlocks, false));
  const float largest = 4.0f;  // that a score may be
  const float inverse = 20.0f;
  for (uint32_t i = 0; i < block.rows() * block.steps(); ++i) {
    SoftmaxLevels<BenchEngine::lanes> level;
    for (uint32_t lane = 0; lane < BenchEngine::lanes; ++lane) {
      level.largest[lane] = largest;
      level.inverse[lane] = inverse;
    }
    levels.write(level);
  }
  std::vector<uint32_t> expected;
  std::vector<uint32_t> sums(block.places(), 0);
  block.walk([&](uint32_t token, uint32_t row, uint32_t step, bool first, const BenchPage&) {
    const float v_scale = block.tokens[token][block.kv_head(step)].v_scale;
    LaneFloats<BenchEngine::lanes> score;
    for (uint32_t lane = 0; lane < BenchEngine::lanes; ++lane) {
      score.value[lane] = random_row(random, 1)[0];
      const float e = exp_nonpositive(score.value[lane] - largest);
      const float weighted = e * (v_scale * inverse);
      expected.push_back(quantize_unsigned(weighted * top, top));
      sums[block.place(row, step, lane)] += quantize_unsigned(e * top, top);
    }
    scores.write(score);
    if (first) value_scales.write(LaneFloats<BenchEngine::pairs>{{v_scale}});
  });
  softmax_top(block.info, commands, levels, scores, value_scales, numerators, denominators);
  for (size_t i = 0; i < expected.size(); i += BenchEngine::lanes) {
    const Numerators<BenchEngine::lanes> n = numerators.read();
    for (uint32_t lane = 0; lane < BenchEngine::lanes; ++lane) {
      differences.compare_bits("numerator", pages, i + lane, expected[i + lane], n.value[lane]);
    }
  }
  for (uint32_t at = 0; at < block.places(); at += BenchEngine::lanes) {
    const LaneSums<BenchEngine::lanes> sum = denominators.read();
    for (uint32_t lane = 0; lane < BenchEngine::lanes; ++lane) {
      differences.compare_bits("denominator", pages, at + lane, sums[at + lane],
                               static_cast<uint32_t>(static_cast<int64_t>(sum.value[lane])));
    }
  }
  differences.expect_empty("scores", scores.empty());
  differences.expect_empty("value_scales", value_scales.empty());
  differences.expect_empty("numerators", numerators.empty());
  differences.expect_empty("denominators", denominators.empty());
}

int main() {
  std::mt19937 random(1);
  Differences differences;
  for (uint32_t i = 0; i < 6; ++i) {
    run(1, 255, random, differences);
    run(3, 65535, random, differences);
  }
  return differences.status();
}
