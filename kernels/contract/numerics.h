// The float and quantisation primitives of the numerics contract (docs/numerics.md).
//
// Shared by the synthesizable kernels and the fast twins: C++14, no library calls but IEEE division
// and square root. Every function is pure. Callers run with round-to-nearest-even, without
// contraction, and with denormals flushed to zero (FlushDenormals in twin/float_mode.h). Functions
// have internal linkage, since the twins compile this header once for each instruction set.
#pragma once

#include <cstdint>

#include "kernels/contract/layout.h"

namespace flexllm {
namespace kernels {

// Reinterprets the bits of a binary32 value; a union is the idiom that HLS compilers take.
static inline uint32_t bits_of(float value) {
  union {
    float f;
    uint32_t u;
  } pun;
  pun.f = value;
  return pun.u;
}

static inline float float_of(uint32_t bits) {
  union {
    float f;
    uint32_t u;
  } pun;
  pun.u = bits;
  return pun.f;
}

constexpr float kInfinity = __builtin_huge_valf();

// Rounds |x| <= 2^22 to the nearest integer, ties to even: the sum has an ulp of one.
constexpr float kRoundShift = 12582912.0f;  // 1.5 * 2^23
static inline float round_even(float x) {
  const float shifted = x + kRoundShift;
  return shifted - kRoundShift;
}

// The same as an integer: the sum's bits count up from those of the shift.
static inline int32_t round_to_integer(float x) {
  return static_cast<int32_t>(bits_of(x + kRoundShift) - 0x4b400000u);
}

// min and max keep `best` when `x` is NaN, so that NaN never enters an extremum.
static inline float min_of(float x, float best) { return x < best ? x : best; }
static inline float max_of(float x, float best) { return x > best ? x : best; }
static inline float abs_of(float x) { return float_of(bits_of(x) & 0x7fffffffu); }

// round(v) saturated to 0..top; NaN becomes 0.
static inline uint32_t quantize_unsigned(float v, float top) {
  const float low = v > 0.0f ? v : 0.0f;
  const float clamped = low < top ? low : top;
  return static_cast<uint32_t>(round_to_integer(clamped));
}

// round(v) saturated to -127..127; NaN becomes -127 (its comparison with the lower bound fails).
static inline int32_t quantize_signed(float v) {
  const float low = v > -127.0f ? v : -127.0f;
  const float clamped = low < 127.0f ? low : 127.0f;
  return round_to_integer(clamped);
}

// Asymmetric quantisation of one token: x ~ zero + scale * q with q in 0..levels.
struct AsymmetricScale {
  float scale;    // step
  float inverse;  // 1 / scale, rounded
  float zero;     // what q = 0 stands for, never -0
};

// `lowest` and `highest` are the extrema over the true size.
static inline AsymmetricScale asymmetric_scale(float lowest, float highest,
                                               const ActivationGrid& grid) {
  const float fraction = grid.fraction();
  const float magnitude = max_of(-lowest, highest);
  const float low = (grid.symmetric ? -magnitude : lowest) * fraction;
  const float high = (grid.symmetric ? magnitude : highest) * fraction;
  AsymmetricScale s;
  s.zero = low + 0.0f;
  const float step = (high - low) / static_cast<float>(grid.levels);
  s.scale = step > 0.0f ? step : 1.0f;
  s.inverse = 1.0f / s.scale;
  return s;
}

static inline uint32_t quantize_asymmetric(float x, const AsymmetricScale& s, float levels) {
  const float shifted = x - s.zero;
  return quantize_unsigned(shifted * s.inverse, levels);
}

// Symmetric INT8 of one head's vector: x ~ scale * q. A zero vector has scale 0 and q 0.
struct SymmetricScale {
  float scale;
  float inverse;
};

static inline SymmetricScale symmetric_scale(float largest_magnitude) {
  SymmetricScale s;
  s.scale = largest_magnitude / 127.0f;
  s.inverse = s.scale > 0.0f ? 1.0f / s.scale : 0.0f;
  return s;
}

// exp(x) for x <= 0, relative error below 1.0e-7 where the result is not 0. 0 for x <= -86 and NaN.
// x = n ln2 + r with |r| <= ln2/2; e^r = 1 + r + r^2 (c2 + c3 r + ... + c6 r^4), a minimax fit of
// our own; ln2 is split so that n * high is exact (Cody and Waite, 1980).
static inline float exp_nonpositive(float x) {
  const bool in_range = x > -86.0f;
  const float bounded = in_range ? x : -86.0f;
  const float n = round_even(bounded * 1.44269502f);
  const float r_high = bounded - n * 0.693359375f;
  const float r = r_high - n * -0.000212194442f;
  float q = 0.0013933687f;
  q = q * r + 0.00836320501f;
  q = q * r + 0.041666463f;
  q = q * r + 0.166665763f;
  q = q * r + 0.5f;
  const float square = r * r;
  q = square * q;
  q = q + r;
  q = q + 1.0f;
  const int32_t exponent = static_cast<int32_t>(n);
  const float power = float_of(static_cast<uint32_t>(exponent + 127) << 23);
  return in_range ? q * power : 0.0f;
}

// log(x) for finite x >= 1, absolute error below 1.1e-6 up to e^13, relative below 2.2e-7 above e.
// x = m 2^e with m in (sqrt(1/2), sqrt 2]; log m = 2 atanh(s), s = (m-1)/(m+1), series to s^9.
static inline float log_from_one(float x) {
  const uint32_t bits = bits_of(x);
  int32_t e = static_cast<int32_t>(bits >> 23) - 127;
  float m = float_of((bits & 0x7fffffu) | 0x3f800000u);
  if (m > 1.41421354f) {
    m = m * 0.5f;
    e = e + 1;
  }
  const float s = (m - 1.0f) / (m + 1.0f);
  const float z = s * s;
  float q = 0.222222224f;
  q = q * z + 0.285714298f;
  q = q * z + 0.400000006f;
  q = q * z + 0.666666687f;
  q = q * z + 2.0f;
  const float log_m = q * s;
  return static_cast<float>(e) * 0.693147182f + log_m;
}

// x * sigmoid(x), with only non-positive arguments to exp.
static inline float silu(float x) {
  const float e = exp_nonpositive(-abs_of(x));
  const float numerator = x < 0.0f ? e : 1.0f;
  const float sigmoid = numerator / (1.0f + e);
  return x * sigmoid;
}

// 1 / sqrt(x): both operations correctly rounded.
static inline float reciprocal_sqrt(float x) { return 1.0f / __builtin_sqrtf(x); }

// Number of interleaved partial sums of a float sum, and their reduction: element i is added to
// partial i mod 64 in ascending i, then halves are folded (32, 16, ..., 1).
constexpr int kPartialSums = 64;

static inline float fold_partial_sums(float partial[kPartialSums]) {
  for (int half = kPartialSums / 2; half > 0; half /= 2) {
    for (int i = 0; i < half; ++i) partial[i] = partial[i] + partial[i + half];
  }
  return partial[0];
}

// y of one output row of a linear layer: acc = sum m_g sum q w (exact), weight_sum = s_w sum m_g w.
static inline float dequantize_linear(int64_t accumulator, const AsymmetricScale& activation,
                                      float weight_scale, float weight_sum) {
  const float product = static_cast<float>(accumulator) * (activation.scale * weight_scale);
  return product + activation.zero * weight_sum;
}

}  // namespace kernels
}  // namespace flexllm
