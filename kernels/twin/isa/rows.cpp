// Row-wise functions: written so that compilers turn the inner loops into the vectors at hand
// without changing the order of any float operation.
#include "kernels/twin/isa/functions.h"

namespace flexllm::kernels::twin::FLEXLLM_ISA {
namespace {

// vsum of docs/numerics.md, section 1, over term(i).
template <class Term>
inline float vector_sum(uint32_t n, const Term& term) {
  float partial[kPartialSums] = {};
  uint32_t i = 0;
  for (; i + kPartialSums <= n; i += kPartialSums) {
    for (int j = 0; j < kPartialSums; ++j) {
      partial[j] = partial[j] + term(i + static_cast<uint32_t>(j));
    }
  }
  for (uint32_t j = 0; i + j < n; ++j) partial[j] = partial[j] + term(i + j);
  return fold_partial_sums(partial);
}

// An extremum does not depend on the order (but for the sign of zero, which no caller keeps), so it
// runs over 64 lanes.
template <class Pick>
inline float extremum(const float* x, uint32_t n, float start, const Pick& pick) {
  float best[kPartialSums];
  for (float& b : best) b = start;
  uint32_t i = 0;
  for (; i + kPartialSums <= n; i += kPartialSums) {
    for (int j = 0; j < kPartialSums; ++j) best[j] = pick(x[i + static_cast<uint32_t>(j)], best[j]);
  }
  for (uint32_t j = 0; i + j < n; ++j) best[j] = pick(x[i + j], best[j]);
  float result = start;
  for (const float b : best) result = pick(b, result);
  return result;
}

}  // namespace

void rms_norm(const float* x, const float* gain, uint32_t n, float eps, float* y) {
  const float squares = vector_sum(n, [x](uint32_t i) { return x[i] * x[i]; });
  const float mean = squares / static_cast<float>(n);
  const float r = reciprocal_sqrt(mean + eps);
  for (uint32_t i = 0; i < n; ++i) y[i] = (x[i] * r) * gain[i];
}

AsymmetricScale quantize(const float* x, uint32_t n, const ActivationGrid& grid, uint8_t* q,
                         int32_t* group_sums) {
  const float lowest = extremum(x, n, kInfinity, min_of);
  const float highest = extremum(x, n, -kInfinity, max_of);
  const AsymmetricScale scale = asymmetric_scale(lowest, highest, grid);
  const auto levels = static_cast<float>(grid.levels);
  for (uint32_t i = 0; i < n; ++i) {
    q[i] = static_cast<uint8_t>(quantize_asymmetric(x[i], scale, levels));
  }
  for (uint32_t g = 0; g * kGroupInputs < n; ++g) {
    const uint32_t begin = g * kGroupInputs;
    const uint32_t end = begin + kGroupInputs < n ? begin + kGroupInputs : n;
    int32_t sum = 0;
    for (uint32_t i = begin; i < end; ++i) sum += q[i];
    group_sums[g] = sum;
  }
  return scale;
}

float quantize_head(const float* x, uint32_t n, uint32_t padded, int8_t* q) {
  float largest = 0.0f;
  for (uint32_t i = 0; i < n; ++i) largest = max_of(abs_of(x[i]), largest);
  const SymmetricScale scale = symmetric_scale(largest);
  for (uint32_t i = 0; i < n; ++i)
    q[i] = static_cast<int8_t>(quantize_signed(x[i] * scale.inverse));
  for (uint32_t i = n; i < padded; ++i) q[i] = 0;
  return scale.scale;
}

void rope(float* x, const float* table, uint32_t head_dim) {
  const uint32_t half = head_dim / 2;
  const float* cosine = table;
  const float* sine = table + half;
  for (uint32_t i = 0; i < half; ++i) {
    const float low = x[i];
    const float high = x[i + half];
    x[i] = low * cosine[i] - high * sine[i];
    x[i + half] = high * cosine[i] + low * sine[i];
  }
}

void silu_gate(const float* gate, const float* up, uint32_t n, float* y) {
  for (uint32_t i = 0; i < n; ++i) y[i] = silu(gate[i]) * up[i];
}

void hadamard(float* y, uint32_t n, uint32_t block, float scale) {
  for (uint32_t begin = 0; begin < n; begin += block) {
    float* b = y + begin;
    for (uint32_t h = 1; h < block; h *= 2) {
      for (uint32_t i = 0; i < block; i += 2 * h) {
        for (uint32_t j = i; j < i + h; ++j) {
          const float left = b[j];
          const float right = b[j + h];
          b[j] = left + right;
          b[j + h] = left - right;
        }
      }
    }
    for (uint32_t i = 0; i < block; ++i) b[i] = b[i] * scale;
  }
}

void add(float* x, const float* y, uint32_t n) {
  for (uint32_t i = 0; i < n; ++i) x[i] = x[i] + y[i];
}

float sum_exp(const float* x, uint32_t n, float max) {
  return vector_sum(n, [x, max](uint32_t i) { return exp_nonpositive(x[i] - max); });
}

}  // namespace flexllm::kernels::twin::FLEXLLM_ISA
