// Testbenches of the KV pages and of attention: records written, queries quantised, pages planned,
// outputs against the plain formula of docs/numerics.md, section 5.
#include <algorithm>
#include <numeric>
#include <utility>

#include "kernels/hls/simulation.h"
#include "kernels/testbench/attention.h"
#include "kernels/tests/module_bench.h"
#include "kernels/tops/attention.h"

#if !FLEXLLM_HLS_TYPES
#include "kernels/hls/timeline.h"
#endif

namespace flexllm::kernels {
namespace {

struct Shape {
  static constexpr uint32_t rows = 12;
  static constexpr uint32_t panel_rows = 12;
  static constexpr uint32_t heads = 6;
  static constexpr uint32_t kv_heads = 3;
  static constexpr uint32_t head_dim = 80;
  static constexpr uint32_t context = 128;
  static constexpr uint32_t kv_streams = 4;
  static constexpr uint32_t kv_ports = 2;
  static constexpr uint32_t attention_rows = 3;
  static constexpr uint32_t head_parallel = 2;
  static constexpr uint32_t kv_parallel = 8;
};

constexpr uint32_t kPages = 9;
// Arenas full of bytes that are no record: not-a-number as scales.
struct Memory {
  explicit Memory(const KvLayout& kv)
      : words(Shape::kv_streams,
              std::vector<Word>(divide_up(kPages, Shape::kv_streams) * kv.page_words(),
                                noise_word())) {
    for (uint32_t s = 0; s < Shape::kv_streams; ++s) arenas.at[s] = words[s].data();
  }
  const Word& at(uint32_t page, uint32_t word, const KvLayout& kv) const {
    return words[page % Shape::kv_streams][page / Shape::kv_streams * kv.page_words() + word];
  }

  std::vector<std::vector<Word>> words;
  PageArenas<Shape::kv_streams> arenas;
};

struct TokenRecord {
  std::vector<Floats> k, v;  // per KV head, before quantisation
};

// Runs quantize_kv and the page writers on one token per row.
void write_tokens(const ModelInfo& info, const std::vector<RowInfo>& rows,
                  const std::vector<TokenRecord>& tokens, Memory& memory) {
  Stage stage = {};
  stage.kind = kQkv;
  stage.rows = static_cast<uint32_t>(rows.size());
  stage.layer = kLayer;
  Fifo<RowInfo, 1> list("list");
  Fifo<HeadTag, 1> tags("tags");
  Fifo<Word, 1> words("words");
  Fifo<PageStore, 1> stores[Shape::kv_ports];
  for (const RowInfo& row : rows) list.write(row);
  for (uint32_t h = 0; h < 2 * info.kv_heads; ++h) {
    for (uint32_t r = 0; r < stage.rows; ++r) {
      tags.write(HeadTag{r, info.heads + h});
      send_row(h < info.kv_heads ? tokens[r].k[h] : tokens[r].v[h - info.kv_heads], words);
    }
  }
  quantize_kv<Shape>(stage, info, list, tags, words, stores);
  for (uint32_t port = 0; port < Shape::kv_ports; ++port) {
    write_pages<Shape>(memory.arenas, port, stage, stores[port]);
    EXPECT_TRUE(stores[port].empty());
  }
}

TokenRecord random_token(std::mt19937& random, const ModelInfo& info) {
  TokenRecord token;
  for (uint32_t h = 0; h < info.kv_heads; ++h) {
    token.k.push_back(random_row(random, info.head_dim));
    token.v.push_back(random() % 8 == 0 ? Floats(info.head_dim, 0.0f)
                                        : random_row(random, info.head_dim));
  }
  return token;
}

RowInfo row_at(uint32_t position, uint32_t page) {
  RowInfo row = {};
  row.position = position;
  row.page = page;
  return row;
}

TEST(WritePages, MakesTheRecordsOfTheLayout) {
  std::mt19937 random(1);
  for (const uint32_t head_dim : {8u, 64u, 80u}) {
    SCOPED_TRACE(head_dim);
    const ModelInfo info = model_info(6, 3, head_dim, 255);
    const KvLayout kv = info.kv();
    Memory memory(kv);
    const std::vector<RowInfo> rows = {row_at(0, 8), row_at(31, 5), row_at(70, 2)};
    std::vector<TokenRecord> tokens;
    for (size_t i = 0; i < rows.size(); ++i) tokens.push_back(random_token(random, info));
    write_tokens(info, rows, tokens, memory);
    uint32_t untouched = 0;
    for (const auto& arena : memory.words) {
      for (const Word& word : arena) untouched += get_lane(word, 0) == 0x7fc00000u ? 1 : 0;
    }
    const auto arena_words = static_cast<uint32_t>(memory.words[0].size());
    EXPECT_EQ(untouched,
              Shape::kv_streams * arena_words - 3 * (kv.scale_words() + 2 * kv.token_words()));
    for (size_t r = 0; r < rows.size(); ++r) {
      const uint32_t base = kLayer * kv.layer_words();
      const uint32_t slot = rows[r].position % kPageTokens;
      for (uint32_t h = 0; h < info.kv_heads; ++h) {
        const Word& scales = memory.at(rows[r].page, base + slot * kv.scale_words(), kv);
        EXPECT_EQ(get_float(scales, h), scale_of(tokens[r].k[h]));
        EXPECT_EQ(get_float(scales, info.kv_heads + h), scale_of(tokens[r].v[h]));
        EXPECT_EQ(get_lane(scales, 2 * info.kv_heads), 0u);
        for (uint32_t i = 0; i < kv.head_words() * kWordBytes; ++i) {
          const uint32_t at = slot * kv.token_words() + h * kv.head_words() + i / kWordBytes;
          const Word& k = memory.at(rows[r].page, base + kv.keys() + at, kv);
          const Word& v = memory.at(rows[r].page, base + kv.values() + at, kv);
          const bool inside = i < head_dim;
          ASSERT_EQ(get_signed_byte(k, i % kWordBytes), inside ? quantized(tokens[r].k[h], i) : 0);
          ASSERT_EQ(get_signed_byte(v, i % kWordBytes), inside ? quantized(tokens[r].v[h], i) : 0);
        }
      }
    }
  }
}

template <typename K>
void expect_plain_attention(const ModelInfo& info, const Rows& given, std::mt19937& random) {
  uint32_t last_page = 0;
  for (const auto& pages : given.pages) {
    for (const uint32_t page : pages) last_page = std::max(last_page, page);
  }
  Pages<K> memory(info.kv(), last_page + 1);
  std::vector<std::vector<Token>> tokens(given.pages.size());
  for (const auto& [s, position] : given.rows) {
    while (tokens[s].size() <= position) {
      const auto t = static_cast<uint32_t>(tokens[s].size());
      tokens[s].push_back(random_record(random, info));
      memory.write(given.pages[s][t / kPageTokens], t % kPageTokens, tokens[s].back());
    }
  }
  LaunchInfo launch;
  const std::vector<Word> desc = given.descriptor(launch);
  Fifo<Word, 1> queries("queries");
  Fifo<Word, 1> outputs("outputs");
  std::vector<Floats> q;
  for (uint32_t r = 0; r < launch.rows; ++r) {
    q.push_back(r % 7 == 2 ? Floats(info.attention(), 0.0f) : random_row(random, info.attention()));
    send_row(q.back(), queries);
  }
  attend<K>(desc.data(), memory.arenas, launch, info, kLayer, queries, outputs);
  EXPECT_TRUE(queries.empty());
  for (uint32_t r = 0; r < launch.rows; ++r) {
    SCOPED_TRACE("row " + std::to_string(r));
    const Floats out = receive_row(info.attention(), outputs);
    for (uint32_t h = 0; h < info.heads; ++h) {
      const auto begin = static_cast<std::ptrdiff_t>(h * info.head_dim);
      const auto end = begin + static_cast<std::ptrdiff_t>(info.head_dim);
      const Floats query(q[r].begin() + begin, q[r].begin() + end);
      expect_same_bits(
          reference_attention(info, tokens[given.rows[r].first], given.rows[r].second + 1, query,
                              h / (info.heads / info.kv_heads)),
          Floats(out.begin() + begin, out.begin() + end));
      if (::testing::Test::HasFatalFailure()) return;
    }
  }
  EXPECT_TRUE(outputs.empty());
}

// One row at a time on four ports, as in decode; the scores of a page or two are kept.
struct RowByRow {
  static constexpr uint32_t rows = 8;
  static constexpr uint32_t heads = 16;
  static constexpr uint32_t kv_heads = 8;
  static constexpr uint32_t head_dim = 64;
  static constexpr uint32_t context = 400;
  static constexpr uint32_t kv_streams = 4;
  static constexpr uint32_t kv_ports = 4;
  static constexpr uint32_t attention_rows = 1;
  static constexpr uint32_t head_parallel = 8;
  static constexpr uint32_t kv_parallel = 32;
  static constexpr uint32_t score_tokens = 64;
};

// Blocks of rows on three ports with two arenas each; half of the models keep a page, half none.
struct FewScores {
  static constexpr uint32_t rows = 20;
  static constexpr uint32_t heads = 8;
  static constexpr uint32_t kv_heads = 8;
  static constexpr uint32_t head_dim = 128;
  static constexpr uint32_t context = 300;
  static constexpr uint32_t kv_streams = 6;
  static constexpr uint32_t kv_ports = 3;
  static constexpr uint32_t attention_rows = 4;
  static constexpr uint32_t head_parallel = 4;
  static constexpr uint32_t kv_parallel = 16;
  static constexpr uint32_t score_tokens = 32;
};

// One port, lanes that share nothing, whole words.
struct OddLanes {
  static constexpr uint32_t rows = 10;
  static constexpr uint32_t heads = 7;
  static constexpr uint32_t kv_heads = 7;
  static constexpr uint32_t head_dim = 96;
  static constexpr uint32_t context = 200;
  static constexpr uint32_t kv_streams = 2;
  static constexpr uint32_t kv_ports = 1;
  static constexpr uint32_t attention_rows = 8;
  static constexpr uint32_t head_parallel = 3;
  static constexpr uint32_t kv_parallel = 64;
};

template <typename K>
void random_attention(uint32_t first_seed, uint32_t cases) {
  for (uint32_t seed = first_seed; seed < first_seed + cases; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    std::mt19937 random(seed);
    const uint32_t kv_heads = 1 + below(random, K::kv_heads);
    const uint32_t heads = kv_heads * (1 + below(random, K::heads / kv_heads));
    const uint32_t head_dim =
        below(random, 4) == 0 ? K::head_dim : 8 * (1 + below(random, K::head_dim / 8));
    const ModelInfo info =
        model_info(heads, kv_heads, head_dim, below(random, 2) == 0 ? 255 : 65535);
    expect_plain_attention<K>(info, random_rows<K>(random), random);
    if (::testing::Test::HasFailure()) return;
  }
}

void random_shapes(uint32_t cases) {
  random_attention<Shape>(100, cases);
  random_attention<RowByRow>(200, cases);
  random_attention<FewScores>(300, cases);
  random_attention<OddLanes>(400, cases);
}

TEST(Attention, EqualsThePlainFormulaInConcurrentMode) { random_shapes(12); }

TEST(Attention, EqualsThePlainFormulaInSequentialMode) {
  const simulation::Scope scope({.mode = simulation::Mode::sequential});
  random_shapes(12);
}

// Blocks of two sequences in turn, with gaps in the positions, at page edges, on one port and on
// all, shorter and longer than the scores that are kept.
TEST(Attention, TakesBlocksBeyondTheScoreMemory) {
  std::mt19937 random(5);
  const Rows given = {
      {{0, 0}, {0, 31}, {0, 32}, {0, 33}, {1, 4}, {0, 250}, {1, 5}, {1, 223}, {0, 260}, {0, 261}},
      {{7, 0, 3, 2, 1, 4, 6, 5, 9}, {12, 24, 36, 48, 60, 72, 84}}};
  for (const uint32_t heads : {8u, 4u}) {  // a lane in two idles, or none
    expect_plain_attention<FewScores>(model_info(heads, heads == 8 ? 8 : 2, 64, 65535), given,
                                      random);
    expect_plain_attention<RowByRow>(model_info(heads, heads == 8 ? 8 : 2, 64, 255),
                                     Rows{{{0, 250}, {1, 5}, {0, 260}, {1, 223}}, given.pages},
                                     random);
  }
}

// Keeps four pages.
struct MoreScores : RowByRow {
  static constexpr uint32_t score_tokens = 128;
};

// On port 0 all keys of the second block come ahead of all values of the first, whose scores are
// kept.
TEST(Attention, LeavesRoomForTheScoresOfTheNextBlock) {
  std::mt19937 random(7);
  const Rows given = {{{0, 383}, {1, 130}},
                      {{1, 2, 3, 5, 6, 7, 9, 10, 0, 4, 8, 12}, {16, 20, 24, 28, 11}}};
  expect_plain_attention<MoreScores>(model_info(16, 8, 64, 255), given, random);
}

// What plan_attention tells one port's loader and its tasks.
template <typename K>
struct Plan {
  typedef PageCommand<K::attention_rows> Command;
  Plan(const ModelInfo& info, const Rows& given) {
    LaunchInfo launch;
    const std::vector<Word> desc = given.descriptor(launch);
    plan_attention<K>(desc.data(), launch, info, kLayer, requests, scored, softened, summed,
                      combined, gathered);
  }
  Fifo<PageRequest, 1> requests[K::kv_ports];
  Fifo<Command, 1> scored[K::kv_ports];
  Fifo<Command, 1> softened[K::kv_ports];
  Fifo<Command, 1> summed[K::kv_ports];
  Fifo<uint32_t, 1> combined;
  Fifo<uint32_t, 1> gathered;
};

// The requests of a port as letters: k keys, v values.
std::string letters(Stream<PageRequest>& requests) {
  std::string text;
  for (PageRequest page = requests.read(); !page.last; page = requests.read()) {
    text += page.values ? 'v' : 'k';
  }
  return text;
}

TEST(Plan, ReadsPagesOnceAndInTurns) {
  // Heads fill the lanes: two pages of a block are kept on each port.
  const ModelInfo info = model_info(16, 8, 64, 255);
  const Rows given = {{{0, 255}, {0, 257}, {1, 100}},
                      {{0, 1, 2, 3, 4, 5, 6, 7, 8}, {9, 13, 10, 14}}};
  Plan<RowByRow> plan(info, given);
  // Port 0: pages 0 and 4 of the first block; of the second also 8, which is one too many.
  EXPECT_EQ(letters(plan.requests[0]), "kkkvkvkvvkv");
  // Port 1: pages 1 and 5 of both blocks in turns, behind them the third block: 9 and 13.
  EXPECT_EQ(letters(plan.requests[1]), "kkkvkvvvkkvv");
  EXPECT_EQ(letters(plan.requests[2]), "kkkvkvvvkkvv");
  EXPECT_EQ(letters(plan.requests[3]), "kkkvkvvv");
}

TEST(TokenWalk, TakesTheCyclesOfTheLongerOfLoadAndWork) {
  typedef PageCommand<FewScores::attention_rows> Command;
  struct Case {
    uint32_t words, steps, parts, cycles;
  };
  // Positions 3 and 40 and a page of 5 tokens, the first four of which both rows see.
  for (const Case& c : {Case{2, 3, 4, 4 * 24 + 12}, Case{30, 3, 4, 5 * 30}, Case{1, 1, 1, 5 * 4}}) {
    Fifo<Command, 1> pages("pages");
    const Command block = {kBeginBlock, false, 2, 0, 0, {3, 40}};
    pages.write(Command{kPage, true, 0, 0, 3, {}});
    pages.write(Command{kPage, true, 0, 3, 2, {}});
    pages.write(Command{kEndOfPass, false, 0, 0, 0, {}});
    TokenWalk<FewScores> walk;
    walk.words = c.words;
    walk.steps = c.steps;
    walk.parts = c.parts;
    walk.least = kTokenCycles;
    walk.begin(pages);
    uint32_t cycles = 0;
    uint32_t loaded = 0;
    uint32_t worked = 0;
    while (walk.busy()) {
      ++cycles;
      loaded += walk.loads() ? 1 : 0;
      worked += walk.works() ? 1 : 0;
      walk.advance(block, pages);
    }
    EXPECT_EQ(loaded, 5 * c.words);
    EXPECT_EQ(worked, 9 * c.steps * c.parts);
    // The last token has no load beside it, the first no work.
    const uint32_t last = std::max(c.steps * c.parts, kTokenCycles);
    const uint32_t longest = std::max({c.words, c.steps * c.parts, kTokenCycles});
    EXPECT_EQ(cycles, c.words + c.cycles - longest + last);
    EXPECT_TRUE(pages.empty());
  }
}

TEST(QuantizeQueries, MakesTheWordsOfTheFormula) {
  std::mt19937 random(6);
  for (const uint32_t head_dim : {8u, 16u, 24u, 64u, 72u, 80u}) {
    SCOPED_TRACE(head_dim);
    const ModelInfo info = model_info(5, 1, head_dim, 255);
    Fifo<Word, 1> in("in");
    Fifo<Word, 1> words[Shape::kv_ports];
    Fifo<float, 1> factors[Shape::kv_ports];
    std::vector<Floats> rows = {random_row(random, info.attention()),
                                random_row(random, info.attention())};
    std::fill_n(rows[0].begin() + head_dim, head_dim, 0.0f);
    for (const Floats& row : rows) send_row(row, in);
    quantize_queries<Shape>(2, info, in, words, factors);
    for (const Floats& row : rows) {
      for (uint32_t h = 0; h < info.heads; ++h) {
        const auto begin = row.begin() + static_cast<std::ptrdiff_t>(h * head_dim);
        const Floats head(begin, begin + static_cast<std::ptrdiff_t>(head_dim));
        for (uint32_t port = 0; port < Shape::kv_ports; ++port) {
          ASSERT_EQ(factors[port].read(), scale_of(head) * info.inv_sqrt_head_dim);
          for (uint32_t w = 0; w < info.kv().head_words(); ++w) {
            const Word word = words[port].read();
            for (uint32_t i = 0; i < kWordBytes; ++i) {
              const uint32_t at = w * kWordBytes + i;
              ASSERT_EQ(get_signed_byte(word, i), at < head_dim ? quantized(head, at) : 0);
            }
          }
        }
      }
    }
    EXPECT_TRUE(words[0].empty());
    EXPECT_TRUE(factors[1].empty());
  }
}

TEST(SharedDot, MultipliesTheExtremes) {
  Word query[2] = {zero_word(), zero_word()};
  Word key = zero_word();
  for (uint32_t i = 0; i < kBytesPerWord; ++i) {
    set_byte(query[0], i, 0x81);  // -127
    set_byte(query[1], i, i % 2 == 0 ? 0x7f : 0x81);
    set_byte(key, i, 0x80);
  }
  int32_t dot[2];
  SharedDot<2, 64>::run(query, key, 0, dot);
  EXPECT_EQ(dot[0], 64 * 127 * 128);
  EXPECT_EQ(dot[1], 0);
  SharedDot<1, 16>::run(query, key, 3, dot);
  EXPECT_EQ(dot[0], 16 * 127 * 128);
}

#if !FLEXLLM_HLS_TYPES

// As decode is built for a model whose heads fill the lanes.
template <uint32_t Ports>
struct Timed {
  static constexpr uint32_t rows = 4;
  static constexpr uint32_t heads = 32;
  static constexpr uint32_t kv_heads = 8;
  static constexpr uint32_t head_dim = 64;
  static constexpr uint32_t context = 512;
  static constexpr uint32_t kv_streams = 4;
  static constexpr uint32_t kv_ports = Ports;
  static constexpr uint32_t attention_rows = 1;
  static constexpr uint32_t head_parallel = 4;
  static constexpr uint32_t kv_parallel = 32;
};

// Cycles of four rows of four sequences, each behind 511 tokens that are dealt to all ports.
template <uint32_t Ports>
uint64_t timed_attention() {
  typedef Timed<Ports> K;
  const ModelInfo info = model_info(K::heads, K::kv_heads, K::head_dim, 255);
  Rows given;
  for (uint32_t s = 0; s < K::rows; ++s) {
    given.rows.emplace_back(s, K::context - 1);
    given.pages.emplace_back(K::context / kPageTokens);
    std::iota(given.pages[s].begin(), given.pages[s].end(), 16 * s);
  }
  const Pages<K> memory(info.kv(), 16 * K::rows);
  LaunchInfo launch;
  const std::vector<Word> desc = given.descriptor(launch);
  simulation::Timeline timeline;
  for (uint32_t port = 0; port < Ports; ++port) {
    const size_t at = timeline.add_port({.name = "kv[" + std::to_string(port) + "]"});
    for (uint32_t arena = port; arena < K::kv_streams; arena += Ports) {
      timeline.add_range(at, memory.words[arena].data(), memory.words[arena].size() * sizeof(Word));
    }
  }
  Fifo<Word, 1> queries("queries");
  Fifo<Word, 1> outputs("outputs");
  for (uint32_t r = 0; r < launch.rows; ++r) send_row(Floats(info.attention(), 1.0f), queries);
  const simulation::Scope scope({.timeline = &timeline});
  attend<K>(desc.data(), memory.arenas, launch, info, kLayer, queries, outputs);
  return timeline.report().cycles;
}

TEST(Attention, TakesTheCyclesOfItsEngines) {
  // A token takes 8 steps of 2 parts; the values of a row go with the keys of the next.
  const uint64_t row = 512 * 16;
  for (const auto& [ports, cycles] : {std::pair<uint64_t, uint64_t>{1, timed_attention<1>()},
                                      {2, timed_attention<2>()},
                                      {4, timed_attention<4>()}}) {
    SCOPED_TRACE(std::to_string(ports) + " ports");
    const uint64_t passes = 5 * row / ports;
    // Pages and passes that wait for each other; for a row its output and queries; the start.
    EXPECT_LT(cycles, passes + passes / 25 + 4 * (128 + 32) + 600);
  }
}

#endif

}  // namespace
}  // namespace flexllm::kernels
