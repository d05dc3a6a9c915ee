// Exact products of small integers, several to a DSP slice. C++14.
//
// A DSP48E2 multiplies a signed 27-bit number by a signed 18-bit one and adds up to 48 bits.
// Numbers that are packed into its operands at a distance come out as products at a distance; as
// long as no sum of them leaves its field, all are exact.
//
//   four products of u4 x u4    w0 + w1 2^22  times  a0 + a1 2^11: fields of 11 bits at 0 (w0 a0),
//                               11 (w0 a1), 22 (w1 a0), 33 (w1 a1). 9 of them add up in a cascade:
//                               9 * 225 < 2^11. With a1 = 0 it is two products.
//   two products of s8 x s8     x0 + x1 2^18  times  y: signed fields of 18 bits at 0 (x0 y) and 18
//                               (x1 y). 7 of them add up, 8 if neither factor is -128. A negative
//                               low field borrows 1 from the high one, which is given back.
// DSP: one for each packed product; nothing for packing, an adder for the borrow.
#pragma once

#include <cstdint>

#include "kernels/hls/pragmas.h"

#if FLEXLLM_HLS_TYPES
#include <ap_int.h>
#endif

namespace flexllm {
namespace kernels {

#if FLEXLLM_HLS_TYPES
typedef ap_int<27> WideOperand;
typedef ap_int<18> NarrowOperand;
typedef ap_int<48> PackedSum;

inline PackedSum multiply_packed(WideOperand a, NarrowOperand b) { return a * b; }
#else
typedef int32_t WideOperand;
typedef int32_t NarrowOperand;
typedef int64_t PackedSum;

inline PackedSum multiply_packed(WideOperand a, NarrowOperand b) {
  return static_cast<int64_t>(a) * b;
}
#endif

constexpr uint32_t kFourField = 11;    // bits of a field of four products
constexpr uint32_t kFourCascade = 9;   // of them that may be added up
constexpr uint32_t kTwoField = 18;     // bits of a field of two products
constexpr uint32_t kTwoCascade = 7;    // of them that may be added up
constexpr uint32_t kTwoSymmetric = 8;  // likewise, where both factors are -127..127

static_assert(kFourCascade * 15 * 15 < (1u << kFourField), "a field holds the sum");
static_assert((15u << (2 * kFourField)) + 15u < (1u << 26), "two weights fit the wide operand");
static_assert((15u << kFourField) + 15u < (1u << 17), "two inputs fit the narrow operand");
static_assert(4 * kFourField <= 47, "four fields fit the sum");
static_assert(kTwoCascade * 128 * 128 < (1u << (kTwoField - 1)), "a signed field holds the sum");
static_assert(kTwoSymmetric * 127 * 127 < (1u << (kTwoField - 1)), "a signed field holds the sum");
static_assert((128u << kTwoField) + 128u < (1u << 26), "two factors fit the wide operand");

// Two u4 weights, two u4 inputs, and their four products.
inline WideOperand pack_weights(uint32_t w0, uint32_t w1) {
  return static_cast<WideOperand>(w0 | (w1 << (2 * kFourField)));
}
inline NarrowOperand pack_inputs(uint32_t a0, uint32_t a1) {
  return static_cast<NarrowOperand>(a0 | (a1 << kFourField));
}

// The sum of w0 a0, w0 a1, w1 a0 or w1 a1: field 0, 1, 2 or 3.
inline uint32_t four_field(const PackedSum& sum, uint32_t field) {
  return static_cast<uint32_t>(static_cast<int64_t>(sum) >> (field * kFourField)) &
         ((1u << kFourField) - 1);
}

// Two s8 factors for the wide operand; the third, which they share, is the narrow one.
inline WideOperand pack_factors(int32_t x0, int32_t x1) {
  return static_cast<WideOperand>(x1 * (1 << kTwoField) + x0);
}

// The sums of x0 y and of x1 y.
inline int32_t two_low(const PackedSum& sum) {
  const uint32_t field = static_cast<uint32_t>(static_cast<int64_t>(sum)) & ((1u << kTwoField) - 1);
  const uint32_t sign = 1u << (kTwoField - 1);
  return static_cast<int32_t>(field ^ sign) - static_cast<int32_t>(sign);
}
inline int32_t two_high(const PackedSum& sum) {
  const int64_t borrowed = (static_cast<int64_t>(sum) >> (kTwoField - 1)) & 1;
  return static_cast<int32_t>((static_cast<int64_t>(sum) >> kTwoField) + borrowed);
}

}  // namespace kernels
}  // namespace flexllm
