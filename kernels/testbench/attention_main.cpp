// Testbench of attention_top: random launches over random pages, some longer than the scores that
// are kept, against the plain formula.
#include "kernels/testbench/attention.h"
#include "kernels/testbench/shapes.h"

using namespace flexllm::kernels;

extern "C" void attention_top(const Word* desc, Word* pages0, Word* pages1, LaunchInfo launch,
                              ModelInfo info, uint32_t layer, Stream<Word>& queries,
                              Stream<Word>& outputs);

static void run(uint32_t seed, Differences& differences) {
  std::mt19937 random(seed);
  const uint32_t kv_heads = 1 + below(random, BenchShape::kv_heads);
  const uint32_t heads = kv_heads * (1 + below(random, BenchShape::heads / kv_heads));
  const uint32_t head_dim = 8 * (1 + below(random, BenchShape::head_dim / 8));
  const ModelInfo info = model_info(heads, kv_heads, head_dim, seed % 2 == 0 ? 255 : 65535);
  Rows given = random_rows<BenchShape>(random);
  if (given.rows.size() > 6) given.rows.resize(6);
  Pages<BenchShape> pages(info.kv(), 128);
  for (std::vector<Word>& arena : pages.words) arena.resize(32768, noise_word());
  for (uint32_t s = 0; s < BenchShape::kv_streams; ++s) pages.arenas.at[s] = pages.words[s].data();
  std::vector<std::vector<Token>> tokens(given.pages.size());
  for (const std::pair<uint32_t, uint32_t>& row : given.rows) {
    std::vector<Token>& of_sequence = tokens[row.first];
    while (of_sequence.size() <= row.second) {
      const auto t = static_cast<uint32_t>(of_sequence.size());
      of_sequence.push_back(random_record(random, info));
      pages.write(given.pages[row.first][t / kPageTokens], t % kPageTokens, of_sequence.back());
    }
  }
  LaunchInfo launch;
  std::vector<Word> desc = given.descriptor(launch);
  desc.resize(64, zero_word());
  Queue<Word> queries("queries");
  Queue<Word> outputs("outputs");
  std::vector<Floats> q;
  for (uint32_t row = 0; row < launch.rows; ++row) {
    q.push_back(random_row(random, info.attention()));
    send_row(q.back(), queries);
  }
  attention_top(desc.data(), pages.arenas.at[0], pages.arenas.at[1], launch, info, kLayer, queries,
                outputs);
  for (uint32_t row = 0; row < launch.rows; ++row) {
    Floats expected;
    for (uint32_t head = 0; head < heads; ++head) {
      const auto begin = q[row].begin() + head * head_dim;
      const Floats out =
          reference_attention(info, tokens[given.rows[row].first], given.rows[row].second + 1,
                              Floats(begin, begin + head_dim), head / (heads / kv_heads));
      expected.insert(expected.end(), out.begin(), out.end());
    }
    differences.compare_rows(expected, receive_row(info.attention(), outputs));
  }
  differences.expect_empty("queries", queries.empty());
  differences.expect_empty("outputs", outputs.empty());
}

int main() {
  Differences differences;
  for (uint32_t seed = 1; seed <= 12; ++seed) run(seed, differences);
  return differences.status();
}
