// Testbench of scores_top: blocks whose scores are all kept, and blocks with a second pass.
#include "kernels/testbench/engine.h"

using namespace flexllm::kernels;

extern "C" void scores_top(ModelInfo info, Stream<BenchCommand>& commands, Stream<Word>& queries,
                           Stream<float>& factors, Stream<Word>& scales, Stream<Word>& keys,
                           Stream<LaneFloats<BenchEngine::lanes>>& scores,
                           Stream<LaneFloats<BenchEngine::pairs>>& value_scales,
                           Stream<Maxima<BenchEngine::lanes>>& maxima);

struct Bench {
  Queue<BenchCommand> commands;
  Queue<Word> queries;
  Queue<float> factors;
  Queue<Word> scales;
  Queue<Word> keys;
  Queue<LaneFloats<BenchEngine::lanes>> scores;
  Queue<LaneFloats<BenchEngine::pairs>> value_scales;
  Queue<Maxima<BenchEngine::lanes>> maxima;
};

// The keys and scales of the pages that a pass reads.
static void send_keys(const EngineBlock& block, bool all, Bench& bench) {
  size_t token = 0;
  for (const BenchPage& page : block.pages) {
    for (uint32_t t = 0; t < page.tokens; ++t, ++token) {
      if (!all && page.kept) continue;
      const Token& record = block.tokens[token];
      Floats scales;
      for (const KvRecord& head : record) scales.push_back(head.k_scale);
      for (const KvRecord& head : record) scales.push_back(head.v_scale);
      send_row(scales, bench.scales);
      send_heads(block, record, false, bench.keys);
    }
  }
}

static void run(uint32_t pages, uint32_t kept, std::mt19937& random, Differences& differences) {
  const EngineBlock block = random_block(random, pages, kept);
  const uint32_t head_dim = block.info.head_dim;
  Bench bench;
  std::vector<std::vector<int32_t>> query;  // of each row and head
  Floats factor;
  for (uint32_t i = 0; i < block.rows() * block.info.heads; ++i) {
    Token q(1);
    for (uint32_t e = 0; e < head_dim; ++e) {
      q[0].k.push_back(static_cast<int32_t>(below(random, 255)) - 127);
    }
    send_heads(block, q, false, bench.queries);
    query.push_back(q[0].k);
    factor.push_back(static_cast<float>(below(random, 1000)) / 10000.0f);
    bench.factors.write(factor.back());
  }
  bench.commands.write(block.begin());
  block.send_pages(true, bench.commands);
  send_keys(block, true, bench);
  bench.commands.write(EngineBlock::end(kEndOfPass, kept < pages));
  if (kept < pages) {
    block.send_pages(false, bench.commands);
    send_keys(block, false, bench);
    bench.commands.write(EngineBlock::end(kEndOfPass, false));
  }
  bench.commands.write(EngineBlock::end(kEndOfBlocks, false));
  scores_top(block.info, bench.commands, bench.queries, bench.factors, bench.scales, bench.keys,
             bench.scores, bench.value_scales, bench.maxima);

  const auto score = [&](uint32_t token, uint32_t row, uint32_t step, uint32_t lane) {
    if (!block.used(step, lane)) return 0.0f;
    const KvRecord& record = block.tokens[token][block.kv_head(step)];
    const uint32_t head = row * block.info.heads + block.head(step, lane);
    const int32_t dot =
        std::inner_product(query[head].begin(), query[head].end(), record.k.begin(), 0);
    const float scale = factor[head] * record.k_scale;
    return static_cast<float>(dot) * scale;
  };
  Floats largest(block.places(), -kInfinity);
  Floats largest_scale(block.places(), 0.0f);
  block.walk([&](uint32_t token, uint32_t row, uint32_t step, bool, const BenchPage&) {
    for (uint32_t lane = 0; lane < BenchEngine::lanes; ++lane) {
      const uint32_t at = block.place(row, step, lane);
      largest[at] = max_of(score(token, row, step, lane), largest[at]);
      largest_scale[at] =
          max_of(block.tokens[token][block.kv_head(step)].v_scale, largest_scale[at]);
    }
  });
  for (const bool of_kept : {true, false}) {
    block.walk([&](uint32_t token, uint32_t row, uint32_t step, bool first, const BenchPage& page) {
      if (page.kept != of_kept) return;
      const LaneFloats<BenchEngine::lanes> scores = bench.scores.read();
      for (uint32_t lane = 0; lane < BenchEngine::lanes; ++lane) {
        differences.compare_bits("score", head_dim, token, bits_of(score(token, row, step, lane)),
                                 bits_of(scores.value[lane]));
      }
      if (!first) return;
      const float v_scale = block.tokens[token][block.kv_head(step)].v_scale;
      differences.compare_bits("V scale", head_dim, token, bits_of(v_scale),
                               bits_of(bench.value_scales.read().value[0]));
    });
  }
  for (uint32_t row = 0; row < block.rows(); ++row) {
    for (uint32_t step = 0; step < block.steps(); ++step) {
      const Maxima<BenchEngine::lanes> maxima = bench.maxima.read();
      for (uint32_t lane = 0; lane < BenchEngine::lanes; ++lane) {
        const uint32_t at = block.place(row, step, lane);
        differences.compare_bits("largest score", head_dim, at, bits_of(largest[at]),
                                 bits_of(maxima.score[lane]));
        differences.compare_bits("largest V scale", head_dim, at, bits_of(largest_scale[at]),
                                 bits_of(maxima.scale[lane]));
      }
    }
  }
  differences.expect_empty("scales", bench.scales.empty());
  differences.expect_empty("keys", bench.keys.empty());
  differences.expect_empty("scores", bench.scores.empty());
  differences.expect_empty("value_scales", bench.value_scales.empty());
  differences.expect_empty("maxima", bench.maxima.empty());
}

int main() {
  std::mt19937 random(1);
  Differences differences;
  for (uint32_t i = 0; i < 6; ++i) {
    run(1, 1, random, differences);
    run(2, 2, random, differences);
    run(3, 1, random, differences);
  }
  return differences.status();
}
