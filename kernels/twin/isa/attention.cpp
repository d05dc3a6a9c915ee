// Attention of one KV head for a block of query heads (docs/numerics.md, section 5, steps 5 and 6).
//
// Keys are read once for all queries of the block, then values once. Scores stand in `scores`; the
// quantised numerators replace them there, as integers.
#include <immintrin.h>

#include <cstring>

#include "kernels/twin/isa/functions.h"

namespace flexllm::kernels::twin::FLEXLLM_ISA {
namespace {

constexpr uint32_t kMaxHeadWords = 4;  // head_dim 256

const int8_t* record(const AttentionHead& h, uint32_t part, uint32_t page, uint32_t token) {
  const size_t word = part + (size_t{token} * h.kv_heads + h.kv_head) * h.head_words;
  return reinterpret_cast<const int8_t*>(h.pages[page] + word * kWordBytes);
}

// K and V scales of a token: floats [kv_heads], then [kv_heads].
const float* scales(const AttentionHead& h, uint32_t token) {
  const std::byte* block = h.pages[token / kPageTokens];
  const size_t word = size_t{token % kPageTokens} * h.scale_words;
  return reinterpret_cast<const float*>(block + word * kWordBytes);
}

#if defined(__AVX512VNNI__)

constexpr uint32_t kTokenBlock = 16;

// Rows of 16 32-bit lanes become columns: in[j] lane i to out[i] lane j.
void transpose_16x16(__m512i (&m)[16]) {
  __m512i a[16];
  for (int i = 0; i < 8; ++i) {
    a[2 * i] = _mm512_unpacklo_epi32(m[2 * i], m[2 * i + 1]);
    a[2 * i + 1] = _mm512_unpackhi_epi32(m[2 * i], m[2 * i + 1]);
  }
  for (int i = 0; i < 4; ++i) {
    m[4 * i] = _mm512_unpacklo_epi64(a[4 * i], a[4 * i + 2]);
    m[4 * i + 1] = _mm512_unpackhi_epi64(a[4 * i], a[4 * i + 2]);
    m[4 * i + 2] = _mm512_unpacklo_epi64(a[4 * i + 1], a[4 * i + 3]);
    m[4 * i + 3] = _mm512_unpackhi_epi64(a[4 * i + 1], a[4 * i + 3]);
  }
  // m[4 b + c]: 128-bit lane l holds column 4 l + c of rows 4 b .. 4 b + 3.
  for (int c = 0; c < 4; ++c) {
    const __m512i low01 = _mm512_shuffle_i32x4(m[c], m[4 + c], 0x44);
    const __m512i high01 = _mm512_shuffle_i32x4(m[c], m[4 + c], 0xee);
    const __m512i low23 = _mm512_shuffle_i32x4(m[8 + c], m[12 + c], 0x44);
    const __m512i high23 = _mm512_shuffle_i32x4(m[8 + c], m[12 + c], 0xee);
    a[c] = _mm512_shuffle_i32x4(low01, low23, 0x88);
    a[4 + c] = _mm512_shuffle_i32x4(low01, low23, 0xdd);
    a[8 + c] = _mm512_shuffle_i32x4(high01, high23, 0x88);
    a[12 + c] = _mm512_shuffle_i32x4(high01, high23, 0xdd);
  }
  std::memcpy(m, a, sizeof a);
}

// q . k of 16 tokens for every query, as integers in the score rows. Keys are biased to unsigned
// and the bias is taken off with the sum of q.
void dot_keys(const AttentionHead& h, uint32_t token, const int32_t* query_sums) {
  const __m512i bias = _mm512_set1_epi8(static_cast<char>(0x80));
  for (uint32_t word = 0; word < h.head_words; ++word) {
    __m512i keys[16];
    for (uint32_t j = 0; j < kTokenBlock; ++j) {
      const int8_t* k = record(h, h.keys, token / kPageTokens, token % kPageTokens + j);
      keys[j] = _mm512_xor_si512(_mm512_loadu_si512(k + size_t{word} * kWordBytes), bias);
    }
    transpose_16x16(keys);
    for (uint32_t i = 0; i < h.queries; ++i) {
      if (h.lengths[i] <= token) continue;
      const int8_t* q = h.q + (size_t{i} * h.head_words + word) * kWordBytes;
      float* out = h.scores + size_t{i} * h.padded + token;
      __m512i sum = word == 0 ? _mm512_set1_epi32(-128 * query_sums[i])
                              : _mm512_loadu_si512(reinterpret_cast<const void*>(out));
      __m512i odd = _mm512_setzero_si512();
      for (uint32_t c = 0; c < 16; c += 2) {
        int32_t four[2];
        std::memcpy(four, q + c * 4, sizeof four);
        sum = _mm512_dpbusd_epi32(sum, keys[c], _mm512_set1_epi32(four[0]));
        odd = _mm512_dpbusd_epi32(odd, keys[c + 1], _mm512_set1_epi32(four[1]));
      }
      _mm512_storeu_si512(reinterpret_cast<void*>(out), _mm512_add_epi32(sum, odd));
    }
  }
}

// sum n_t v_t of one page: four tokens a step, numerators as two unsigned bytes.
void add_page(const AttentionHead& h, uint32_t page, uint32_t query, uint32_t tokens,
              int64_t* total) {
  const auto* numerators =
      reinterpret_cast<const uint32_t*>(h.scores + size_t{query} * h.padded) + page * kPageTokens;
  for (uint32_t word = 0; word < h.head_words; ++word) {
    __m512i low[4];
    __m512i high[4];
    for (int i = 0; i < 4; ++i) low[i] = high[i] = _mm512_setzero_si512();
    for (uint32_t t = 0; t < tokens; t += 4) {
      __m512i v[4];
      uint32_t low_bytes = 0;
      uint32_t high_bytes = 0;
      for (uint32_t j = 0; j < 4; ++j) {
        const bool valid = t + j < tokens;
        const uint32_t n = valid ? numerators[t + j] : 0;
        low_bytes |= (n & 255u) << (8 * j);
        high_bytes |= (n >> 8) << (8 * j);
        v[j] =
            valid ? _mm512_loadu_si512(record(h, h.values, page, t + j) + size_t{word} * kWordBytes)
                  : _mm512_setzero_si512();
      }
      // Bytes of the four tokens side by side, one 32-bit lane a dimension.
      const __m512i v01_low = _mm512_unpacklo_epi8(v[0], v[1]);
      const __m512i v01_high = _mm512_unpackhi_epi8(v[0], v[1]);
      const __m512i v23_low = _mm512_unpacklo_epi8(v[2], v[3]);
      const __m512i v23_high = _mm512_unpackhi_epi8(v[2], v[3]);
      const __m512i parts[4] = {
          _mm512_unpacklo_epi16(v01_low, v23_low), _mm512_unpackhi_epi16(v01_low, v23_low),
          _mm512_unpacklo_epi16(v01_high, v23_high), _mm512_unpackhi_epi16(v01_high, v23_high)};
      const __m512i n_low = _mm512_set1_epi32(static_cast<int32_t>(low_bytes));
      const __m512i n_high = _mm512_set1_epi32(static_cast<int32_t>(high_bytes));
      for (int p = 0; p < 4; ++p) {
        low[p] = _mm512_dpbusd_epi32(low[p], n_low, parts[p]);
        high[p] = _mm512_dpbusd_epi32(high[p], n_high, parts[p]);
      }
    }
    // part p, 128-bit lane b, element e is dimension 16 b + 4 p + e.
    alignas(64) int32_t sums[16];
    for (uint32_t p = 0; p < 4; ++p) {
      _mm512_store_si512(sums, _mm512_add_epi32(low[p], _mm512_slli_epi32(high[p], 8)));
      for (uint32_t b = 0; b < 4; ++b) {
        for (uint32_t e = 0; e < 4; ++e) {
          total[word * kWordBytes + 16 * b + 4 * p + e] += sums[4 * b + e];
        }
      }
    }
  }
}

#else

constexpr uint32_t kTokenBlock = 8;

void dot_keys(const AttentionHead& h, uint32_t token, const int32_t* /*query_sums*/) {
  for (uint32_t j = 0; j < kTokenBlock; ++j) {
    const int8_t* k = record(h, h.keys, token / kPageTokens, token % kPageTokens + j);
    for (uint32_t i = 0; i < h.queries; ++i) {
      const int8_t* q = h.q + size_t{i} * h.head_words * kWordBytes;
      int32_t sum = 0;
      for (uint32_t d = 0; d < h.head_dim; ++d) sum += int32_t{q[d]} * int32_t{k[d]};
      std::memcpy(h.scores + size_t{i} * h.padded + token + j, &sum, sizeof sum);
    }
  }
}

void add_page(const AttentionHead& h, uint32_t page, uint32_t query, uint32_t tokens,
              int64_t* total) {
  const auto* numerators =
      reinterpret_cast<const uint32_t*>(h.scores + size_t{query} * h.padded) + page * kPageTokens;
  // 32 tokens * 65535 * 127 < 2^29.
  int32_t sums[kMaxHeadWords * kWordBytes] = {};
  for (uint32_t t = 0; t < tokens; ++t) {
    const auto n = static_cast<int32_t>(numerators[t]);
    const int8_t* v = record(h, h.values, page, t);
    for (uint32_t d = 0; d < h.head_dim; ++d) sums[d] += n * int32_t{v[d]};
  }
  for (uint32_t d = 0; d < h.head_dim; ++d) total[d] += sums[d];
}

#endif

// Scores to numerators, in place; returns S / float(sum of denominators).
float soften(const AttentionHead& h, uint32_t query) {
  float* row = h.scores + size_t{query} * h.padded;
  const uint32_t length = h.lengths[query];
  const float f = h.scale[query];
  float max = -kInfinity;
  float largest_value_scale = 0.0f;
  for (uint32_t t = 0; t < length; ++t) {
    const float* s = scales(h, t);
    int32_t dot;
    std::memcpy(&dot, row + t, sizeof dot);
    const float a = static_cast<float>(dot) * (f * s[h.kv_head]);
    row[t] = a;
    max = max_of(a, max);
    largest_value_scale = max_of(s[h.kv_heads + h.kv_head], largest_value_scale);
  }
  const float inverse = largest_value_scale > 0.0f ? 1.0f / largest_value_scale : 0.0f;
  int64_t denominator = 0;
  for (uint32_t page = 0; page * kPageTokens < length; ++page) {
    const uint32_t begin = page * kPageTokens;
    const uint32_t count = length - begin < kPageTokens ? length - begin : kPageTokens;
    float ratio[kPageTokens];
    for (uint32_t i = 0; i < count; ++i) {
      ratio[i] = scales(h, begin + i)[h.kv_heads + h.kv_head] * inverse;
    }
    int32_t page_denominator = 0;
    float* scores = row + begin;
    for (uint32_t i = 0; i < count; ++i) {
      const float e = exp_nonpositive(scores[i] - max);
      page_denominator += static_cast<int32_t>(quantize_unsigned(e * h.levels, h.levels));
      const uint32_t n = quantize_unsigned((e * ratio[i]) * h.levels, h.levels);
      scores[i] = float_of(n);
    }
    denominator += page_denominator;
  }
  return largest_value_scale / static_cast<float>(denominator);
}

}  // namespace

void attention(const AttentionHead& h) {
  const uint32_t longest = h.lengths[h.queries - 1];
  int32_t query_sums[256] = {};
  for (uint32_t i = 0; i < h.queries; ++i) {
    const int8_t* q = h.q + size_t{i} * h.head_words * kWordBytes;
    for (uint32_t d = 0; d < h.head_dim; ++d) query_sums[i] += q[d];
  }
  for (uint32_t token = 0; token < longest; token += kTokenBlock) dot_keys(h, token, query_sums);
  for (uint32_t i = 0; i < h.queries; ++i) {
    const float factor = soften(h, i);
    int64_t total[kMaxHeadWords * kWordBytes] = {};
    for (uint32_t page = 0; page * kPageTokens < h.lengths[i]; ++page) {
      const uint32_t left = h.lengths[i] - page * kPageTokens;
      add_page(h, page, i, left < kPageTokens ? left : kPageTokens, total);
    }
    for (uint32_t d = 0; d < h.head_dim; ++d) h.out[i][d] = static_cast<float>(total[d]) * factor;
  }
}

}  // namespace flexllm::kernels::twin::FLEXLLM_ISA
