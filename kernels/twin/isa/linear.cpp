// One weight tile times a block of quantised rows (docs/numerics.md, section 4).
//
// Weights come as nibble planes and are multiplied as bytes: with VNNI as signed w, without as the
// unsigned planes, whose offset is taken off with the sums of q. Each product over a group is exact
// in 32 bits: 64 * 255 * 255 < 2^22; a per-channel row over all inputs too: 16384 * 255 * 255 <
// 2^30.
#include <immintrin.h>

#include <cstring>

#include "kernels/twin/isa/functions.h"

namespace flexllm::kernels::twin::FLEXLLM_ISA {
namespace {

// Integer results of a block of tokens: exact dot products of one group (or of all inputs).
template <int kTokens>
struct Accumulators {
  alignas(64) int32_t row[kTokens][kTileRows];
};

#if defined(__AVX512VNNI__)

constexpr int kBlock = 8;

// acc = sum q w over words [begin, end).
template <int kTokens, bool kTwoPlanes>
void dot_words(const Tile& tile, const Activations& x, uint32_t token, uint32_t begin, uint32_t end,
               Accumulators<kTokens>& acc) {
  const __m512i low_nibbles = _mm512_set1_epi8(0x0f);
  const __m512i high_nibbles = _mm512_set1_epi8(static_cast<char>(0xf0));
  const __m512i sign = _mm512_set1_epi8(static_cast<char>(0x80));
  const __m512i eight = _mm512_set1_epi8(8);
  __m512i sum[kTokens][2];
  for (auto& s : sum) s[0] = s[1] = _mm512_setzero_si512();
  const uint8_t* q = x.q + size_t{token} * x.inputs;
  for (uint32_t k = begin; k < end; ++k) {
    const __m512i p0 = _mm512_loadu_si512(tile.planes[0] + size_t{k} * kWordBytes);
    __m512i w0 = _mm512_and_si512(p0, low_nibbles);
    __m512i w1 = _mm512_and_si512(_mm512_srli_epi16(p0, 4), low_nibbles);
    if constexpr (kTwoPlanes) {
      const __m512i p1 = _mm512_loadu_si512(tile.planes[1] + size_t{k} * kWordBytes);
      const __m512i high0 = _mm512_and_si512(_mm512_slli_epi16(p1, 4), high_nibbles);
      const __m512i high1 = _mm512_and_si512(p1, high_nibbles);
      w0 = _mm512_xor_si512(_mm512_or_si512(w0, high0), sign);
      w1 = _mm512_xor_si512(_mm512_or_si512(w1, high1), sign);
    } else {
      w0 = _mm512_sub_epi8(w0, eight);
      w1 = _mm512_sub_epi8(w1, eight);
    }
    for (int t = 0; t < kTokens; ++t) {
      int32_t four;
      std::memcpy(&four, q + static_cast<size_t>(t) * x.inputs + k * kInputsPerWord, sizeof four);
      const __m512i inputs = _mm512_set1_epi32(four);
      sum[t][0] = _mm512_dpbusd_epi32(sum[t][0], inputs, w0);
      sum[t][1] = _mm512_dpbusd_epi32(sum[t][1], inputs, w1);
    }
  }
  for (int t = 0; t < kTokens; ++t) {
    _mm512_store_si512(acc.row[t], sum[t][0]);
    _mm512_store_si512(acc.row[t] + 16, sum[t][1]);
  }
}

#elif defined(__AVX2__)

constexpr int kBlock = 2;

// The same from unsigned planes: low and high nibble products fit 16 bits (2 * 255 * 15).
template <int kTokens, bool kTwoPlanes>
void dot_words(const Tile& tile, const Activations& x, uint32_t token, uint32_t begin, uint32_t end,
               Accumulators<kTokens>& acc) {
  const __m256i low_nibbles = _mm256_set1_epi8(0x0f);
  const __m256i one = _mm256_set1_epi16(1);
  const __m256i sixteen = _mm256_set1_epi16(16);
  __m256i sum[kTokens][4];  // rows 0-7, 8-15, 16-23, 24-31
  int32_t inputs_sum[kTokens] = {};
  for (auto& s : sum) {
    for (auto& part : s) part = _mm256_setzero_si256();
  }
  const uint8_t* q = x.q + size_t{token} * x.inputs;
  for (uint32_t k = begin; k < end; ++k) {
    __m256i weights[kTwoPlanes ? 2 : 1][4];
    for (int plane = 0; plane < (kTwoPlanes ? 2 : 1); ++plane) {
      const auto* word =
          reinterpret_cast<const __m256i*>(tile.planes[plane] + size_t{k} * kWordBytes);
      for (int half = 0; half < 2; ++half) {
        const __m256i bytes = _mm256_loadu_si256(word + half);
        weights[plane][half] = _mm256_and_si256(bytes, low_nibbles);
        weights[plane][half + 2] = _mm256_and_si256(_mm256_srli_epi16(bytes, 4), low_nibbles);
      }
    }
    for (int t = 0; t < kTokens; ++t) {
      int32_t four;
      std::memcpy(&four, q + static_cast<size_t>(t) * x.inputs + k * kInputsPerWord, sizeof four);
      const __m256i inputs = _mm256_set1_epi32(four);
      for (int part = 0; part < 4; ++part) {
        const __m256i low = _mm256_maddubs_epi16(inputs, weights[0][part]);
        sum[t][part] = _mm256_add_epi32(sum[t][part], _mm256_madd_epi16(low, one));
        if constexpr (kTwoPlanes) {
          const __m256i high = _mm256_maddubs_epi16(inputs, weights[1][part]);
          sum[t][part] = _mm256_add_epi32(sum[t][part], _mm256_madd_epi16(high, sixteen));
        }
      }
    }
  }
  for (int t = 0; t < kTokens; ++t) {
    for (uint32_t i = begin * kInputsPerWord; i < end * kInputsPerWord; ++i) {
      inputs_sum[t] += q[static_cast<size_t>(t) * x.inputs + i];
    }
    const __m256i offset = _mm256_set1_epi32(inputs_sum[t] * (kTwoPlanes ? 128 : 8));
    for (int part = 0; part < 4; ++part) {
      _mm256_store_si256(reinterpret_cast<__m256i*>(acc.row[t] + part * 8),
                         _mm256_sub_epi32(sum[t][part], offset));
    }
  }
}

#else

constexpr int kBlock = 1;

template <int kTokens, bool kTwoPlanes>
void dot_words(const Tile& tile, const Activations& x, uint32_t token, uint32_t begin, uint32_t end,
               Accumulators<kTokens>& acc) {
  static_assert(kTokens == 1);
  int32_t* row = acc.row[0];
  for (uint32_t r = 0; r < kTileRows; ++r) row[r] = 0;
  const uint8_t* q = x.q + size_t{token} * x.inputs;
  for (uint32_t k = begin; k < end; ++k) {
    for (uint32_t byte = 0; byte < kWordBytes; ++byte) {
      const uint32_t r = byte / kInputsPerWord;
      const int32_t input = q[k * kInputsPerWord + byte % kInputsPerWord];
      const uint32_t p0 = tile.planes[0][size_t{k} * kWordBytes + byte];
      uint32_t low_row = p0 & 15u;
      uint32_t high_row = p0 >> 4;
      if constexpr (kTwoPlanes) {
        const uint32_t p1 = tile.planes[1][size_t{k} * kWordBytes + byte];
        low_row |= (p1 & 15u) << 4;
        high_row |= p1 & 0xf0u;
      }
      constexpr int32_t offset = kTwoPlanes ? 128 : 8;
      row[r] += input * (static_cast<int32_t>(low_row) - offset);
      row[r + 16] += input * (static_cast<int32_t>(high_row) - offset);
    }
  }
}

#endif

void finish(const Tile& tile, const AsymmetricScale& scale, const int64_t* total, float* y) {
  for (uint32_t r = 0; r < kTileRows; ++r) {
    y[r] = dequantize_linear(total[r], scale, tile.scales[r], tile.weight_sums[r]);
  }
  if (tile.bias == nullptr) return;
  for (uint32_t r = 0; r < kTileRows; ++r) y[r] = y[r] + tile.bias[r];
}

template <int kTokens, bool kTwoPlanes>
void block(const Tile& tile, const Activations& x, uint32_t token, float* y, size_t stride) {
  Accumulators<kTokens> acc;
  alignas(64) int64_t total[kTokens][kTileRows] = {};
  const uint32_t words = x.inputs / kInputsPerWord;
  constexpr uint32_t kGroupWords = kGroupInputs / kInputsPerWord;
  if (tile.multipliers == nullptr) {
    dot_words<kTokens, kTwoPlanes>(tile, x, token, 0, words, acc);
    for (int t = 0; t < kTokens; ++t) {
      for (uint32_t r = 0; r < kTileRows; ++r) total[t][r] = acc.row[t][r];
    }
  } else {
    for (uint32_t g = 0; g < x.groups; ++g) {
      const uint32_t begin = g * kGroupWords;
      const uint32_t end = begin + kGroupWords < words ? begin + kGroupWords : words;
      dot_words<kTokens, kTwoPlanes>(tile, x, token, begin, end, acc);
      const uint8_t* multiplier = tile.multipliers + size_t{g} * kTileRows;
      for (int t = 0; t < kTokens; ++t) {
        for (uint32_t r = 0; r < kTileRows; ++r) total[t][r] += acc.row[t][r] * multiplier[r];
      }
    }
  }
  for (int t = 0; t < kTokens; ++t) {
    const uint32_t index = token + static_cast<uint32_t>(t);
    finish(tile, x.scale[index], total[t], y + index * stride);
  }
}

template <bool kTwoPlanes>
void all_tokens(const Tile& tile, const Activations& x, float* y, size_t stride) {
  uint32_t token = 0;
  for (; token + kBlock <= x.tokens; token += kBlock) {
    block<kBlock, kTwoPlanes>(tile, x, token, y, stride);
  }
  if constexpr (kBlock >= 8) {
    if (x.tokens - token >= 4) {
      block<4, kTwoPlanes>(tile, x, token, y, stride);
      token += 4;
    }
  }
  if constexpr (kBlock >= 4) {
    if (x.tokens - token >= 2) {
      block<2, kTwoPlanes>(tile, x, token, y, stride);
      token += 2;
    }
  }
  if constexpr (kBlock >= 2) {
    if (x.tokens > token) block<1, kTwoPlanes>(tile, x, token, y, stride);
  }
}

}  // namespace

void linear_tile(const Tile& tile, const Activations& x, float* y, size_t stride) {
  if (tile.two_planes) {
    all_tokens<true>(tile, x, y, stride);
  } else {
    all_tokens<false>(tile, x, y, stride);
  }
}

}  // namespace flexllm::kernels::twin::FLEXLLM_ISA
