// Testbenches of the KV pages and of attention: records written, pages walked, outputs against the
// plain formula of docs/numerics.md, section 5.
#include "kernels/modules/attention.h"
#include "kernels/modules/pages.h"
#include "kernels/tests/module_bench.h"

namespace flexllm::kernels {
namespace {

struct Shape {
  static constexpr uint32_t rows = 12;
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
constexpr uint32_t kLayers = 2;
constexpr uint32_t kLayer = 1;  // the one that is written and read

ModelInfo model_info(uint32_t heads, uint32_t kv_heads, uint32_t head_dim, uint32_t levels) {
  ModelInfo info = {};
  info.layers = kLayers;
  info.heads = heads;
  info.kv_heads = kv_heads;
  info.head_dim = head_dim;
  info.inv_sqrt_head_dim = 0.004f;  // flat enough that many tokens count
  info.probability_levels = levels;
  return info;
}

// Arenas full of bytes that are no record: not-a-number as scales.
struct Memory {
  explicit Memory(const KvLayout& kv)
      : words(Shape::kv_streams,
              std::vector<Word>(divide_up(kPages, Shape::kv_streams) * kv.page_words(), noise())) {
    for (uint32_t s = 0; s < Shape::kv_streams; ++s) arenas.at[s] = words[s].data();
  }
  static Word noise() {
    Word word = zero_word();
    for (uint32_t lane = 0; lane < kFieldsPerWord; ++lane) set_lane(word, lane, 0x7fc00000u);
    return word;
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
    token.k.push_back(random_floats(random, info.head_dim));
    token.v.push_back(random() % 8 == 0 ? Floats(info.head_dim, 0.0f)
                                        : random_floats(random, info.head_dim));
  }
  return token;
}

float scale_of(const Floats& x) {
  float largest = 0.0f;
  for (const float value : x) largest = std::max(largest, abs_of(value));
  return largest / 127.0f;
}

int32_t quantized(const Floats& x, uint32_t i) {
  const float s = scale_of(x);
  return quantize_signed(x[i] * (s > 0.0f ? 1.0f / s : 0.0f));
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

// Output of one query head over the first `count` tokens, by the plain formula.
Floats reference_attention(const ModelInfo& info, const std::vector<TokenRecord>& tokens,
                           uint32_t count, const Floats& q, uint32_t kv_head) {
  const float f = scale_of(q) * info.inv_sqrt_head_dim;
  const auto levels = static_cast<float>(info.probability_levels);
  Floats a(count);
  float m = -kInfinity;
  float largest_scale = 0.0f;
  for (uint32_t t = 0; t < count; ++t) {
    int32_t dot = 0;
    for (uint32_t i = 0; i < info.head_dim; ++i) {
      dot += quantized(q, i) * quantized(tokens[t].k[kv_head], i);
    }
    const float step = f * scale_of(tokens[t].k[kv_head]);
    a[t] = static_cast<float>(dot) * step;
    m = std::max(m, a[t]);
    largest_scale = std::max(largest_scale, scale_of(tokens[t].v[kv_head]));
  }
  const float inverse = largest_scale > 0.0f ? 1.0f / largest_scale : 0.0f;
  int64_t denominator = 0;
  std::vector<int64_t> sums(info.head_dim, 0);
  for (uint32_t t = 0; t < count; ++t) {
    const float e = exp_nonpositive(a[t] - m);
    denominator += quantize_unsigned(e * levels, levels);
    const float ratio = scale_of(tokens[t].v[kv_head]) * inverse;
    const float weighted = e * ratio;
    const int64_t n = quantize_unsigned(weighted * levels, levels);
    for (uint32_t i = 0; i < info.head_dim; ++i) {
      sums[i] += n * quantized(tokens[t].v[kv_head], i);
    }
  }
  const float factor = largest_scale / static_cast<float>(denominator);
  Floats out(info.head_dim);
  for (uint32_t i = 0; i < info.head_dim; ++i) out[i] = static_cast<float>(sums[i]) * factor;
  return out;
}

// A sequence of 70 tokens over pages 7, 0, 3 and one of 5 tokens on page 6.
void run_attention_case(const ModelInfo& info, std::mt19937& random) {
  const KvLayout kv = info.kv();
  Memory memory(kv);
  const std::vector<std::vector<uint32_t>> pages = {{7, 0, 3}, {6}};
  const uint32_t lengths[] = {70, 5};
  std::vector<std::vector<TokenRecord>> tokens(2);
  for (uint32_t s = 0; s < 2; ++s) {
    for (uint32_t t = 0; t < lengths[s]; ++t) {
      tokens[s].push_back(random_token(random, info));
      write_tokens(info, {row_at(t, pages[s][t / kPageTokens])}, {tokens[s].back()}, memory);
    }
  }
  // Rows: runs of one sequence longer than a block, gaps in the positions, page edges.
  const std::vector<std::pair<uint32_t, uint32_t>> rows = {
      {0, 0}, {0, 31}, {0, 32}, {0, 33}, {1, 4}, {0, 63}, {0, 64}, {1, 0}, {0, 69}};
  LaunchInfo launch = {};
  launch.rows = static_cast<uint32_t>(rows.size());
  launch.row_table = 1;
  launch.page_tables = launch.row_table + launch.rows;
  launch.page_table_stride = 2;
  std::vector<Word> desc(launch.page_tables + 4, zero_word());
  for (uint32_t r = 0; r < launch.rows; ++r) {
    set_lane(desc[launch.row_table + r], row_field::sequence, rows[r].first);
    set_lane(desc[launch.row_table + r], row_field::position, rows[r].second);
  }
  for (uint32_t s = 0; s < 2; ++s) {
    for (uint32_t i = 0; i < pages[s].size(); ++i) {
      set_lane(desc[launch.page_tables + 2 * s], i, pages[s][i]);
    }
  }

  Fifo<QueryBlock<Shape::attention_rows>, 1> blocks[kBlockReaders];
  Fifo<PageRequest, 1> requests[Shape::kv_ports];
  Fifo<PageRequest, 1> order("order");
  Fifo<Word, 1> page_words[Shape::kv_ports];
  Fifo<Word, 1> queries("queries");
  Fifo<Word, 1> query_words("query_words");
  Fifo<PerHead<Shape::heads>, 1> query_factors("query_factors");
  Fifo<Word, 1> key_scales("key_scales");
  Fifo<Word, 1> value_scales("value_scales");
  Fifo<Word, 1> keys("keys");
  Fifo<Word, 1> values("values");
  Fifo<PerHead<Shape::heads>, 1> scores("scores");
  Fifo<Numerators<Shape::heads>, 1> numerators("numerators");
  Fifo<PerHead<Shape::heads>, 1> factors("factors");
  Fifo<Word, 1> outputs("outputs");
  std::vector<Floats> q;
  for (uint32_t r = 0; r < launch.rows; ++r) {
    q.push_back(r == 2 ? Floats(info.attention(), 0.0f) : random_floats(random, info.attention()));
    send_row(q.back(), queries);
  }
  plan_attention<Shape>(desc.data(), launch, info, kLayer, blocks, requests, order);
  quantize_queries<Shape>(launch.rows, info, queries, query_words, query_factors);
  for (uint32_t port = 0; port < Shape::kv_ports; ++port) {
    load_pages<Shape>(memory.arenas, port, info, requests[port], page_words[port]);
  }
  merge_pages<Shape>(info, order, page_words, key_scales, value_scales, keys, values);
  score_keys<Shape>(info, blocks[0], query_words, query_factors, key_scales, keys, scores);
  soften_scores<Shape>(info, blocks[1], value_scales, scores, numerators, factors);
  accumulate_values<Shape>(info, blocks[2], values, numerators, factors, outputs);

  const uint32_t group = info.heads / info.kv_heads;
  for (uint32_t r = 0; r < launch.rows; ++r) {
    SCOPED_TRACE("row " + std::to_string(r));
    const Floats out = receive_row(info.attention(), outputs);
    for (uint32_t h = 0; h < info.heads; ++h) {
      const auto begin = static_cast<std::ptrdiff_t>(h * info.head_dim);
      const auto end = begin + static_cast<std::ptrdiff_t>(info.head_dim);
      const Floats query(q[r].begin() + begin, q[r].begin() + end);
      expect_same_bits(
          reference_attention(info, tokens[rows[r].first], rows[r].second + 1, query, h / group),
          Floats(out.begin() + begin, out.begin() + end));
    }
  }
  EXPECT_TRUE(outputs.empty());
  EXPECT_TRUE(keys.empty());
  EXPECT_TRUE(values.empty());
}

TEST(Attention, EqualsThePlainFormula) {
  std::mt19937 random(2);
  for (const uint32_t levels : {255u, 65535u}) {
    run_attention_case(model_info(6, 3, 80, levels), random);
    run_attention_case(model_info(6, 1, 16, levels), random);
    run_attention_case(model_info(3, 3, 8, levels), random);
    run_attention_case(model_info(4, 2, 64, levels), random);
  }
}

TEST(DotBytes, MultipliesTheExtremes) {
  Word a = zero_word();
  Word b = zero_word();
  for (uint32_t i = 0; i < kBytesPerWord; ++i) {
    set_byte(a, i, 0x81);  // -127
    set_byte(b, i, i % 2 == 0 ? 0x7f : 0x81);
  }
  EXPECT_EQ(dot_bytes<8>(a, a), 64 * 127 * 127);
  EXPECT_EQ(dot_bytes<8>(a, b), 0);
}

}  // namespace
}  // namespace flexllm::kernels
