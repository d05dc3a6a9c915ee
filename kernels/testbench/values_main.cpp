// Testbench of values_top: exact sums of random values, the widest weights among theirs.
#include "kernels/testbench/engine.h"

using namespace flexllm::kernels;

extern "C" void values_top(ModelInfo info, Stream<BenchCommand>& commands, Stream<Word>& values,
                           Stream<Numerators<BenchEngine::lanes>>& numerators,
                           Stream<LaneSums<BenchEngine::drained>>& sums);

static void run(uint32_t pages, std::mt19937& random, Differences& differences) {
  const EngineBlock block = random_block(random, pages, pages);
  const uint32_t head_dim = block.info.head_dim;
  Queue<BenchCommand> commands;
  Queue<Word> values;
  Queue<Numerators<BenchEngine::lanes>> numerators;
  Queue<LaneSums<BenchEngine::drained>> sums;
  commands.write(block.begin());
  block.send_pages(true, commands);
  commands.write(EngineBlock::end(kEndOfPass, false));
  commands.write(EngineBlock::end(kEndOfBlocks, false));
  for (const Token& token : block.tokens) send_heads(block, token, true, values);
  std::vector<std::vector<int64_t>> expected(block.rows() * block.info.heads,
                                             std::vector<int64_t>(head_dim, 0));
  block.walk([&](uint32_t token, uint32_t row, uint32_t step, bool, const BenchPage&) {
    Numerators<BenchEngine::lanes> n;
    for (uint32_t lane = 0; lane < BenchEngine::lanes; ++lane) {
      const uint32_t weight = below(random, 4) == 0 ? 65535 : below(random, 65536);
      n.value[lane] = static_cast<uint16_t>(weight);
      if (!block.used(step, lane)) continue;
      const KvRecord& record = block.tokens[token][block.kv_head(step)];
      std::vector<int64_t>& of_head = expected[row * block.info.heads + block.head(step, lane)];
      for (uint32_t i = 0; i < head_dim; ++i) of_head[i] += int64_t{weight} * record.v[i];
    }
    numerators.write(n);
  });
  values_top(block.info, commands, values, numerators, sums);
  for (const std::vector<int64_t>& of_head : expected) {
    for (uint32_t begin = 0; begin < head_dim; begin += BenchEngine::drained) {
      const LaneSums<BenchEngine::drained> sum = sums.read();
      for (uint32_t i = 0; i < BenchEngine::drained && begin + i < head_dim; ++i) {
        const auto actual = static_cast<int64_t>(sum.value[i]);
        differences.compare_bits("sum", head_dim, begin + i,
                                 static_cast<uint32_t>(of_head[begin + i]),
                                 static_cast<uint32_t>(actual));
        differences.compare_bits("upper half of sum", head_dim, begin + i,
                                 static_cast<uint32_t>(of_head[begin + i] >> 32),
                                 static_cast<uint32_t>(actual >> 32));
      }
    }
  }
  differences.expect_empty("values", values.empty());
  differences.expect_empty("numerators", numerators.empty());
  differences.expect_empty("sums", sums.empty());
}

int main() {
  std::mt19937 random(1);
  Differences differences;
  for (uint32_t i = 0; i < 6; ++i) {
    run(1, random, differences);
    run(3, random, differences);
  }
  return differences.status();
}
