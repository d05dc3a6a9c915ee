// The contract's row operations (docs/numerics.md) as plain loops, written from its text: what the
// modules are compared with by their testbenches and by kernels/tests/. C++14.
#pragma once

#include <algorithm>

#include "kernels/testbench/testbench.h"

namespace flexllm {
namespace kernels {

// vsum of section 1.
template <typename Term>
float vector_sum(uint32_t size, const Term& term) {
  Floats p(64, 0.0f);
  for (uint32_t i = 0; i < size; ++i) p[i % 64] = p[i % 64] + term(i);
  for (uint32_t h = 32; h > 0; h /= 2) {
    for (uint32_t j = 0; j < h; ++j) p[j] = p[j] + p[j + h];
  }
  return p[0];
}

// rmsnorm of section 2.
inline Floats reference_norm(const Floats& x, const Floats& gain, float eps) {
  const auto n = static_cast<uint32_t>(x.size());
  const float ms = vector_sum(n, [&](uint32_t i) { return x[i] * x[i]; }) / static_cast<float>(n);
  const float r = reciprocal_sqrt(ms + eps);
  Floats y(n);
  for (uint32_t i = 0; i < n; ++i) {
    const float scaled = x[i] * r;
    y[i] = scaled * gain[i];
  }
  return y;
}

// RoPE of section 5, step 2: `table` has the cosines of a position, then its sines.
inline Floats reference_rope(Floats x, const Floats& table) {
  const size_t half = x.size() / 2;
  for (size_t i = 0; i < half; ++i) {
    const float low = x[i];
    const float high = x[i + half];
    x[i] = low * table[i] - high * table[half + i];
    x[i + half] = high * table[i] + low * table[half + i];
  }
  return x;
}

// R4 of section 6, in blocks; block 0 leaves the row as it is.
inline Floats reference_hadamard(Floats y, uint32_t block, float scale) {
  if (block == 0) return y;
  for (size_t begin = 0; begin < y.size(); begin += block) {
    for (uint32_t h = 1; h < block; h *= 2) {
      for (uint32_t i = 0; i < block; ++i) {
        if ((i & h) != 0) continue;
        const float a = y[begin + i];
        const float b = y[begin + i + h];
        y[begin + i] = a + b;
        y[begin + i + h] = a - b;
      }
    }
  }
  for (float& value : y) value = value * scale;
  return y;
}

// exp(x - maximum) of each element of a row.
inline Floats exponentials(const Floats& row) {
  float largest = -kInfinity;
  for (const float x : row) largest = max_of(x, largest);
  Floats e;
  for (const float x : row) e.push_back(exp_nonpositive(x - largest));
  return e;
}

// silu(gate) * up of sections 2 and 6.
inline float reference_gate(float gate, float up) {
  const float e = exp_nonpositive(gate < 0.0f ? gate : -gate);
  return gate * ((gate < 0.0f ? e : 1.0f) / (1.0f + e)) * up;
}

// The ids of a row of logits (section 7) by logit descending, then id; only what is above
// -infinity.
inline std::vector<uint32_t> sorted_ids(const Floats& logits) {
  std::vector<uint32_t> ids;
  for (uint32_t i = 0; i < logits.size(); ++i) {
    if (logits[i] > -kInfinity) ids.push_back(i);
  }
  std::stable_sort(ids.begin(), ids.end(),
                   [&](uint32_t a, uint32_t b) { return logits[a] > logits[b]; });
  return ids;
}

}  // namespace kernels
}  // namespace flexllm
