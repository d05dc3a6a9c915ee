// Pages with known records, random launches, and attention by the plain formula of
// docs/numerics.md, section 5. C++14.
#pragma once

#include <algorithm>
#include <array>
#include <numeric>

#include "kernels/modules/attention.h"
#include "kernels/testbench/testbench.h"

namespace flexllm {
namespace kernels {

constexpr uint32_t kLayers = 2;
constexpr uint32_t kLayer = 1;  // the one that is written and read

inline ModelInfo model_info(uint32_t heads, uint32_t kv_heads, uint32_t head_dim, uint32_t levels) {
  ModelInfo info = {};
  info.layers = kLayers;
  info.heads = heads;
  info.kv_heads = kv_heads;
  info.head_dim = head_dim;
  info.inv_sqrt_head_dim = 0.004f;  // flat enough that many tokens count
  info.probability_levels = levels;
  return info;
}

// A word that is no record: not-a-number as scales.
inline Word noise_word() {
  Word word = zero_word();
  for (uint32_t lane = 0; lane < kFieldsPerWord; ++lane) set_lane(word, lane, 0x7fc00000u);
  return word;
}

inline float scale_of(const Floats& x) {
  float largest = 0.0f;
  for (const float value : x) largest = std::max(largest, abs_of(value));
  return largest / 127.0f;
}

inline int32_t quantized(const Floats& x, uint32_t i) {
  const float s = scale_of(x);
  return quantize_signed(x[i] * (s > 0.0f ? 1.0f / s : 0.0f));
}

// What a KV head of a token is in a page.
struct KvRecord {
  std::vector<int32_t> k, v;
  float k_scale, v_scale;
};
using Token = std::vector<KvRecord>;  // per KV head

// The pages of one layer, and what was written to them.
template <typename K>
struct Pages {
  Pages(const KvLayout& kv, uint32_t pages) : layout(kv) {
    words.assign(K::kv_streams, std::vector<Word>(divide_up(pages, K::kv_streams) * kv.page_words(),
                                                  noise_word()));
    for (uint32_t s = 0; s < K::kv_streams; ++s) arenas.at[s] = words[s].data();
  }

  void write(uint32_t page, uint32_t slot, const Token& token) {
    Word* layer = words[page % K::kv_streams].data() + page / K::kv_streams * layout.page_words() +
                  kLayer * layout.layer_words();
    const uint32_t heads = layout.kv_heads;
    Word* scales = layer + slot * layout.scale_words();
    for (uint32_t w = 0; w < layout.scale_words(); ++w) scales[w] = zero_word();
    for (uint32_t h = 0; h < heads; ++h) {
      set_float(scales[h / kFloatsPerWord], h % kFloatsPerWord, token[h].k_scale);
      set_float(scales[(heads + h) / kFloatsPerWord], (heads + h) % kFloatsPerWord,
                token[h].v_scale);
      const uint32_t at = slot * layout.token_words() + h * layout.head_words();
      for (uint32_t i = 0; i < layout.head_words() * kWordBytes; ++i) {
        const bool inside = i < layout.head_dim;
        const uint32_t byte = i % kWordBytes;
        set_byte(layer[layout.keys() + at + i / kWordBytes], byte,
                 static_cast<uint32_t>(inside ? token[h].k[i] : 0));
        set_byte(layer[layout.values() + at + i / kWordBytes], byte,
                 static_cast<uint32_t>(inside ? token[h].v[i] : 0));
      }
    }
  }

  KvLayout layout;
  std::vector<std::vector<Word>> words;
  PageArenas<K::kv_streams> arenas;
};

inline uint32_t below(std::mt19937& random, size_t limit) {
  return static_cast<uint32_t>(random() % limit);
}

// Extremes and zeros are not rare.
inline Token random_record(std::mt19937& random, const ModelInfo& info) {
  Token token(info.kv_heads);
  for (KvRecord& head : token) {
    const bool zero = below(random, 16) == 0;
    for (uint32_t i = 0; i < info.head_dim; ++i) {
      const uint32_t kind = below(random, 8);
      head.k.push_back(kind == 0 ? -127 : static_cast<int32_t>(below(random, 255)) - 127);
      head.v.push_back(zero ? 0 : kind == 1 ? 127 : static_cast<int32_t>(below(random, 255)) - 127);
    }
    head.k_scale = static_cast<float>(below(random, 1000)) / 20000.0f;
    head.v_scale = zero ? 0.0f : static_cast<float>(below(random, 1000) + 1) / 20000.0f;
  }
  return token;
}

// Output of one query head over the first `count` tokens, by the plain formula.
inline Floats reference_attention(const ModelInfo& info, const std::vector<Token>& tokens,
                                  uint32_t count, const Floats& q, uint32_t kv_head) {
  const float f = scale_of(q) * info.inv_sqrt_head_dim;
  const auto levels = static_cast<float>(info.probability_levels);
  std::vector<int32_t> q8(info.head_dim);
  for (uint32_t i = 0; i < info.head_dim; ++i) q8[i] = quantized(q, i);
  Floats a(count);
  float m = -kInfinity;
  float largest_scale = 0.0f;
  for (uint32_t t = 0; t < count; ++t) {
    const KvRecord& kv = tokens[t][kv_head];
    const int32_t dot = std::inner_product(q8.begin(), q8.end(), kv.k.begin(), 0);
    const float step = f * kv.k_scale;
    a[t] = static_cast<float>(dot) * step;
    m = std::max(m, a[t]);
    largest_scale = std::max(largest_scale, kv.v_scale);
  }
  const float inverse = largest_scale > 0.0f ? 1.0f / largest_scale : 0.0f;
  int64_t denominator = 0;
  std::vector<int64_t> sums(info.head_dim, 0);
  for (uint32_t t = 0; t < count; ++t) {
    const KvRecord& kv = tokens[t][kv_head];
    const float e = exp_nonpositive(a[t] - m);
    denominator += quantize_unsigned(e * levels, levels);
    const float ratio = kv.v_scale * inverse;
    const float weighted = e * ratio;
    const int64_t n = quantize_unsigned(weighted * levels, levels);
    for (uint32_t i = 0; i < info.head_dim; ++i) sums[i] += n * kv.v[i];
  }
  const float factor = largest_scale / static_cast<float>(denominator);
  Floats out(info.head_dim);
  for (uint32_t i = 0; i < info.head_dim; ++i) out[i] = static_cast<float>(sums[i]) * factor;
  return out;
}

// Rows of a launch (sequence, position), and the pages of each sequence.
struct Rows {
  std::vector<std::pair<uint32_t, uint32_t>> rows;
  std::vector<std::vector<uint32_t>> pages;

  std::vector<Word> descriptor(LaunchInfo& launch) const {
    launch = {};
    launch.rows = static_cast<uint32_t>(rows.size());
    launch.row_table = 1;
    launch.page_tables = launch.row_table + launch.rows;
    launch.page_table_stride = 2;
    std::vector<Word> desc(launch.page_tables + 2 * pages.size(), zero_word());
    for (uint32_t r = 0; r < launch.rows; ++r) {
      set_lane(desc[launch.row_table + r], row_field::sequence, rows[r].first);
      set_lane(desc[launch.row_table + r], row_field::position, rows[r].second);
    }
    for (uint32_t s = 0; s < pages.size(); ++s) {
      for (uint32_t i = 0; i < pages[s].size(); ++i) {
        set_lane(desc[launch.page_tables + 2 * s + i / kFieldsPerWord], i % kFieldsPerWord,
                 pages[s][i]);
      }
    }
    return desc;
  }
};

// Runs of ascending positions of up to three sequences, some of them on pages of one port only.
template <typename K>
Rows random_rows(std::mt19937& random) {
  constexpr uint32_t kPool = 64 * K::kv_streams;
  Rows given;
  std::array<uint32_t, kPool> ids;
  std::iota(ids.begin(), ids.end(), 0u);
  std::shuffle(ids.begin(), ids.end(), random);
  std::vector<uint32_t> left(ids.begin(), ids.end());
  const uint32_t sequences = 1 + below(random, 3);
  std::vector<uint32_t> next(sequences);
  for (uint32_t s = 0; s < sequences; ++s) {
    const bool one_port = below(random, 3) == 0;
    const uint32_t port = below(random, K::kv_ports);
    const uint32_t length = 1 + below(random, K::context);
    next[s] = below(random, 2) == 0 ? length - 1 : below(random, length);
    given.pages.emplace_back();
    while (given.pages[s].size() < divide_up(K::context, kPageTokens)) {
      const auto id = std::find_if(left.begin(), left.end(), [&](uint32_t page) {
        return !one_port || page % K::kv_streams % K::kv_ports == port;
      });
      given.pages[s].push_back(*id);
      left.erase(id);
    }
  }
  const uint32_t rows = 1 + below(random, K::rows);
  uint32_t s = 0;
  while (given.rows.size() < rows) {
    if (below(random, 4) == 0) s = below(random, sequences);
    if (next[s] >= K::context) break;
    given.rows.emplace_back(s, next[s]);
    next[s] += below(random, 3) == 0 ? 1 + below(random, 40) : 1;
  }
  return given;
}

}  // namespace kernels
}  // namespace flexllm
