// Attention of a block of rows over the pages of their sequence (docs/numerics.md, section 5). All
// heads of a token go through together, so each key and value is read once for all query heads of
// its group and all rows of the block. Nothing grows with the context: the maximum is found in a
// first pass over the keys, the output made in a second.
//
// Per token and row one element of all heads passes from module to module; a row sees the tokens up
// to its own position only.
#pragma once

#include "kernels/modules/heads.h"
#include "kernels/modules/pages.h"

namespace flexllm {
namespace kernels {

// A value for each query head: scores, numerators, factors.
template <uint32_t Heads>
struct PerHead {
  float value[Heads];
};
template <uint32_t Heads>
struct Numerators {
  uint16_t value[Heads];
};

// Quantises the heads of query rows: per row the INT8 words of all heads, and per head
// s_q / sqrt(head_dim).
//   K     shape
// Cycles: per row attention / 16 to read, 2 attention to quantise.
template <typename K>
void quantize_queries(uint32_t rows, const ModelInfo info, Stream<Word>& in, Stream<Word>& words,
                      Stream<PerHead<K::heads>>& factors) {
  const uint32_t row_words = float_words(info.attention());
  const uint32_t head_words = info.kv().head_words();
  for (uint32_t row = 0; row < rows; ++row) {
    HLS_TRIPS(1, K::rows)
    float x[padded(K::heads * K::head_dim)];
    for (uint32_t w = 0; w < row_words; ++w) {
      HLS_TRIPS(1, float_words(K::heads * K::head_dim))
      HLS_PIPELINE(1)
      const Word word = in.read();
      HLS_UNROLL_AHEAD
      for (uint32_t lane = 0; lane < kFloatsPerWord; ++lane) {
        HLS_UNROLL
        x[w * kFloatsPerWord + lane] = get_float(word, lane);
      }
    }
    PerHead<K::heads> factor = {};
    for (uint32_t head = 0; head < info.heads; ++head) {
      HLS_TRIPS(1, K::heads)
      const float* q = x + head * info.head_dim;
      const SymmetricScale scale = symmetric_scale(largest_magnitude(q, info.head_dim));
      factor.value[head] = scale.scale * info.inv_sqrt_head_dim;
      for (uint32_t w = 0; w < head_words; ++w) {
        HLS_TRIPS(1, divide_up(K::head_dim, kBytesPerWord))
        words.write(quantize_head_word(q, info.head_dim, w, scale.inverse));
      }
    }
    factors.write(factor);
  }
}

// Exact sum of the products of 64 signed bytes.
//   Parallel  products a cycle
template <uint32_t Parallel>
inline int32_t dot_bytes(const Word& a, const Word& b) {
  int32_t sum = 0;
  for (uint32_t i = 0; i < kBytesPerWord; ++i) {
    HLS_UNROLL_BY(Parallel)
    sum += get_signed_byte(a, i) * get_signed_byte(b, i);
  }
  return sum;
}

// Reads the scales of a page: K or V scale of every KV head of every token. `first` is the index of
// the first float that is kept: 0 for K, kv_heads for V.
template <uint32_t KvHeads>
inline void read_scales(Stream<Word>& in, uint32_t tokens, uint32_t scale_words, uint32_t first,
                        uint32_t kv_heads, float scale[kPageTokens][padded(2 * KvHeads)]) {
  for (uint32_t t = 0; t < tokens; ++t) {
    HLS_TRIPS(1, kPageTokens)
    for (uint32_t w = 0; w < scale_words; ++w) {
      HLS_TRIPS(1, float_words(2 * KvHeads))
      HLS_PIPELINE(1)
      const Word word = in.read();
      HLS_UNROLL_AHEAD
      for (uint32_t lane = 0; lane < kFloatsPerWord; ++lane) {
        HLS_UNROLL
        const uint32_t i = w * kFloatsPerWord + lane;
        if (i >= first && i < first + kv_heads) scale[t][i - first] = get_float(word, lane);
      }
    }
  }
}

// Number of tokens of page `page` when `tokens` are to be seen.
inline uint32_t tokens_of_page(uint32_t tokens, uint32_t page) {
  const uint32_t left = tokens - page * kPageTokens;
  return left < kPageTokens ? left : kPageTokens;
}

// a_t of every head for each token and row that may see it, in both passes.
//   K     shape
// Cycles: per token max(words of its keys, rows * heads * head_dim / (head_parallel *
// kv_parallel)).
template <typename K>
void score_keys(const ModelInfo info, Stream<QueryBlock<K::attention_rows>>& blocks,
                Stream<Word>& queries, Stream<PerHead<K::heads>>& factors, Stream<Word>& scales,
                Stream<Word>& keys, Stream<PerHead<K::heads>>& scores) {
  typedef QueryBlock<K::attention_rows> Block;
  constexpr uint32_t kHeadWords = divide_up(K::head_dim, kBytesPerWord);
  const KvLayout layout = info.kv();
  const uint32_t group = info.heads / info.kv_heads;
  const uint32_t head_words = layout.head_words();
  for (Block block = blocks.read(); !block.last; block = blocks.read()) {
    HLS_TRIPS(1, K::rows)
    Word query[K::attention_rows][K::heads * kHeadWords];
    PerHead<K::heads> factor[K::attention_rows];
    for (uint32_t row = 0; row < block.rows; ++row) {
      HLS_TRIPS(1, K::attention_rows)
      for (uint32_t w = 0; w < info.heads * head_words; ++w) {
        HLS_TRIPS(1, K::heads * kHeadWords)
        HLS_PIPELINE(1)
        query[row][w] = queries.read();
      }
      factor[row] = factors.read();
    }
    const uint32_t pages = divide_up(block.tokens, kPageTokens);
    for (uint32_t i = 0; i < 2 * pages; ++i) {
      HLS_TRIPS(2, 2 * divide_up(K::context, kPageTokens))
      const uint32_t page = i < pages ? i : i - pages;
      const uint32_t tokens = tokens_of_page(block.tokens, page);
      float scale[kPageTokens][padded(2 * K::kv_heads)];
      read_scales<K::kv_heads>(scales, tokens, layout.scale_words(), 0, info.kv_heads, scale);
      for (uint32_t t = 0; t < tokens; ++t) {
        HLS_TRIPS(1, kPageTokens)
        Word key[K::kv_heads * kHeadWords];
        for (uint32_t w = 0; w < layout.token_words(); ++w) {
          HLS_TRIPS(1, K::kv_heads * kHeadWords)
          HLS_PIPELINE(1)
          key[w] = keys.read();
        }
        for (uint32_t row = 0; row < block.rows; ++row) {
          HLS_TRIPS(1, K::attention_rows)
          if (page * kPageTokens + t > block.position[row]) continue;
          PerHead<K::heads> out = {};
          for (uint32_t head = 0; head < info.heads; ++head) {
            HLS_TRIPS(1, K::heads)
            HLS_UNROLL_BY(K::head_parallel)
            const uint32_t kv_head = head / group;
            int32_t dot = 0;
            for (uint32_t w = 0; w < head_words; ++w) {
              HLS_TRIPS(1, kHeadWords)
              dot += dot_bytes<K::kv_parallel>(query[row][head * head_words + w],
                                               key[kv_head * head_words + w]);
            }
            const float step = factor[row].value[head] * scale[t][kv_head];
            out.value[head] = static_cast<float>(dot) * step;
          }
          scores.write(out);
        }
      }
    }
  }
}

// First pass: maximum score of each head and largest V scale of each KV head, per row. Second pass:
// numerators, token by token, and the exact sums of the denominators; at the end of a block, for
// each row, the factors S / sum d.
//   K     shape
// Cycles: per token and row heads / head_parallel.
template <typename K>
void soften_scores(const ModelInfo info, Stream<QueryBlock<K::attention_rows>>& blocks,
                   Stream<Word>& scales, Stream<PerHead<K::heads>>& scores,
                   Stream<Numerators<K::heads>>& numerators, Stream<PerHead<K::heads>>& factors) {
  typedef QueryBlock<K::attention_rows> Block;
  const KvLayout layout = info.kv();
  const uint32_t group = info.heads / info.kv_heads;
  const float levels = static_cast<float>(info.probability_levels);
  for (Block block = blocks.read(); !block.last; block = blocks.read()) {
    HLS_TRIPS(1, K::rows)
    float largest[K::attention_rows][K::heads];
    float largest_scale[K::attention_rows][K::kv_heads];
    float inverse[K::attention_rows][K::kv_heads];
    Accumulator denominator[K::attention_rows][K::heads];
    for (uint32_t row = 0; row < K::attention_rows; ++row) {
      for (uint32_t head = 0; head < K::heads; ++head) {
        HLS_PIPELINE(1)
        largest[row][head] = -kInfinity;
        denominator[row][head] = 0;
      }
      for (uint32_t head = 0; head < K::kv_heads; ++head) {
        HLS_PIPELINE(1)
        largest_scale[row][head] = 0.0f;
        inverse[row][head] = 0.0f;
      }
    }
    const uint32_t pages = divide_up(block.tokens, kPageTokens);
    for (uint32_t i = 0; i < 2 * pages; ++i) {
      HLS_TRIPS(2, 2 * divide_up(K::context, kPageTokens))
      const bool second = i >= pages;
      const uint32_t page = second ? i - pages : i;
      if (i == pages) {
        for (uint32_t row = 0; row < block.rows; ++row) {
          HLS_TRIPS(1, K::attention_rows)
          for (uint32_t head = 0; head < info.kv_heads; ++head) {
            HLS_TRIPS(1, K::kv_heads)
            HLS_PIPELINE(1)
            const float s = largest_scale[row][head];
            inverse[row][head] = s > 0.0f ? 1.0f / s : 0.0f;
          }
        }
      }
      const uint32_t tokens = tokens_of_page(block.tokens, page);
      float scale[kPageTokens][padded(2 * K::kv_heads)];
      read_scales<K::kv_heads>(scales, tokens, layout.scale_words(), info.kv_heads, info.kv_heads,
                               scale);
      for (uint32_t t = 0; t < tokens; ++t) {
        HLS_TRIPS(1, kPageTokens)
        for (uint32_t row = 0; row < block.rows; ++row) {
          HLS_TRIPS(1, K::attention_rows)
          if (page * kPageTokens + t > block.position[row]) continue;
          const PerHead<K::heads> a = scores.read();
          Numerators<K::heads> out = {};
          for (uint32_t head = 0; head < info.heads; ++head) {
            HLS_TRIPS(1, K::heads)
            HLS_PIPELINE(1)
            HLS_UNROLL_BY(K::head_parallel)
            const uint32_t kv_head = head / group;
            const float value_scale = scale[t][kv_head];
            if (!second) {
              largest[row][head] = max_of(a.value[head], largest[row][head]);
              largest_scale[row][kv_head] = max_of(value_scale, largest_scale[row][kv_head]);
              continue;
            }
            const float e = exp_nonpositive(a.value[head] - largest[row][head]);
            const float ratio = value_scale * inverse[row][kv_head];
            denominator[row][head] += static_cast<int32_t>(quantize_unsigned(e * levels, levels));
            out.value[head] =
                static_cast<uint16_t>(quantize_unsigned((e * ratio) * levels, levels));
          }
          if (second) numerators.write(out);
        }
      }
    }
    for (uint32_t row = 0; row < block.rows; ++row) {
      HLS_TRIPS(1, K::attention_rows)
      PerHead<K::heads> factor = {};
      for (uint32_t head = 0; head < info.heads; ++head) {
        HLS_TRIPS(1, K::heads)
        HLS_PIPELINE(1)
        factor.value[head] = largest_scale[row][head / group] / to_float(denominator[row][head]);
      }
      factors.write(factor);
    }
  }
}

// sum n_t v_t of every head, then the output rows, packed into words.
//   K     shape; attention_rows * heads * head_dim accumulators on chip
// Cycles: per token max(words of its values, rows * heads * head_dim / (head_parallel *
// kv_parallel)); per row attention to drain.
template <typename K>
void accumulate_values(const ModelInfo info, Stream<QueryBlock<K::attention_rows>>& blocks,
                       Stream<Word>& values, Stream<Numerators<K::heads>>& numerators,
                       Stream<PerHead<K::heads>>& factors, Stream<Word>& out) {
  typedef QueryBlock<K::attention_rows> Block;
  constexpr uint32_t kHeadWords = divide_up(K::head_dim, kBytesPerWord);
  static_assert(static_cast<uint64_t>(K::context) * 65535 * 127 < (1ull << 47),
                "an accumulator of 48 bits holds the sum");
  const KvLayout layout = info.kv();
  const uint32_t group = info.heads / info.kv_heads;
  const uint32_t head_words = layout.head_words();
  for (Block block = blocks.read(); !block.last; block = blocks.read()) {
    HLS_TRIPS(1, K::rows)
    Accumulator sum[K::attention_rows][K::heads * K::head_dim];
    for (uint32_t row = 0; row < K::attention_rows; ++row) {
      for (uint32_t i = 0; i < info.attention(); ++i) {
        HLS_TRIPS(8, K::heads * K::head_dim)
        HLS_PIPELINE(1)
        HLS_UNROLL_BY(16)
        sum[row][i] = 0;
      }
    }
    for (uint32_t token = 0; token < block.tokens; ++token) {
      HLS_TRIPS(1, K::context)
      Word value[K::kv_heads * kHeadWords];
      for (uint32_t w = 0; w < layout.token_words(); ++w) {
        HLS_TRIPS(1, K::kv_heads * kHeadWords)
        HLS_PIPELINE(1)
        value[w] = values.read();
      }
      for (uint32_t row = 0; row < block.rows; ++row) {
        HLS_TRIPS(1, K::attention_rows)
        if (token > block.position[row]) continue;
        const Numerators<K::heads> n = numerators.read();
        for (uint32_t head = 0; head < info.heads; ++head) {
          HLS_TRIPS(1, K::heads)
          HLS_UNROLL_BY(K::head_parallel)
          const uint32_t at = head / group * head_words;
          for (uint32_t i = 0; i < info.head_dim; ++i) {
            HLS_TRIPS(8, K::head_dim)
            HLS_PIPELINE(1)
            HLS_UNROLL_BY(K::kv_parallel)
            sum[row][head * info.head_dim + i] +=
                static_cast<int32_t>(n.value[head]) *
                get_signed_byte(value[at + i / kBytesPerWord], i % kBytesPerWord);
          }
        }
      }
    }
    for (uint32_t row = 0; row < block.rows; ++row) {
      HLS_TRIPS(1, K::attention_rows)
      const PerHead<K::heads> factor = factors.read();
      Word word = zero_word();
      for (uint32_t head = 0; head < info.heads; ++head) {
        HLS_TRIPS(1, K::heads)
        for (uint32_t i = 0; i < info.head_dim; ++i) {
          HLS_TRIPS(8, K::head_dim)
          HLS_PIPELINE(1)
          const uint32_t at = head * info.head_dim + i;
          set_float(word, at % kFloatsPerWord, to_float(sum[row][at]) * factor.value[head]);
          if (at % kFloatsPerWord == kFloatsPerWord - 1 || at + 1 == info.attention()) {
            out.write(word);
            word = zero_word();
          }
        }
      }
    }
  }
}

}  // namespace kernels
}  // namespace flexllm
