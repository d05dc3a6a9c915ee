// Every product of kernels/modules/packed_products.h, and every field at the edge of its cascade.
#include <gtest/gtest.h>

#include <random>

#include "kernels/modules/packed_products.h"

namespace flexllm::kernels {
namespace {

TEST(PackedProducts, FourOfAllNibbles) {
  for (uint32_t bits = 0; bits < 1u << 16; ++bits) {
    const uint32_t w[2] = {bits & 15u, (bits >> 4) & 15u};
    const uint32_t a[2] = {(bits >> 8) & 15u, bits >> 12};
    const PackedSum sum = multiply_packed(pack_weights(w[0], w[1]), pack_inputs(a[0], a[1]));
    for (uint32_t field = 0; field < 4; ++field) {
      ASSERT_EQ(four_field(sum, field), w[field / 2] * a[field % 2]) << bits << ", " << field;
    }
  }
}

TEST(PackedProducts, FourAddUpInACascade) {
  std::mt19937 random(1);
  for (uint32_t run = 0; run < 20000; ++run) {
    PackedSum sum = 0;
    uint32_t expected[4] = {};
    for (uint32_t i = 0; i < kFourCascade; ++i) {
      // Every subset of fields is full in some run, and empty in another.
      const auto nibble = [&](uint32_t bit) {
        if (run >= 16) return static_cast<uint32_t>(random() % 16);
        return (run >> bit) & 1u ? 15u : 0u;
      };
      const uint32_t w[2] = {nibble(0), nibble(1)};
      const uint32_t a[2] = {nibble(2), nibble(3)};
      sum += multiply_packed(pack_weights(w[0], w[1]), pack_inputs(a[0], a[1]));
      for (uint32_t field = 0; field < 4; ++field) expected[field] += w[field / 2] * a[field % 2];
    }
    for (uint32_t field = 0; field < 4; ++field) {
      ASSERT_EQ(four_field(sum, field), expected[field]) << run << ", " << field;
    }
  }
}

TEST(PackedProducts, TwoOfAllBytesBesideCorners) {
  for (int32_t x = -128; x < 128; ++x) {
    for (int32_t y = -128; y < 128; ++y) {
      for (const int32_t other : {-128, -127, -65, -1, 0, 1, 64, 127}) {
        const NarrowOperand factor = static_cast<NarrowOperand>(y);
        const PackedSum low = multiply_packed(pack_factors(x, other), factor);
        ASSERT_EQ(two_low(low), x * y) << other;
        ASSERT_EQ(two_high(low), other * y) << x;
        const PackedSum high = multiply_packed(pack_factors(other, x), factor);
        ASSERT_EQ(two_low(high), other * y) << x;
        ASSERT_EQ(two_high(high), x * y) << other;
      }
    }
  }
}

void add_up_two(int32_t least, int32_t most, uint32_t cascade) {
  std::mt19937 random(2);
  for (uint32_t run = 0; run < 20000; ++run) {
    PackedSum sum = 0;
    int32_t low = 0;
    int32_t high = 0;
    for (uint32_t i = 0; i < cascade; ++i) {
      const auto number = [&](uint32_t bit) {
        if (run < 8) return (run >> bit) & 1u ? most : least;
        return least + static_cast<int32_t>(random() % static_cast<uint32_t>(most - least + 1));
      };
      const int32_t x0 = number(0);
      const int32_t x1 = number(1);
      const int32_t y = number(2);
      sum += multiply_packed(pack_factors(x0, x1), static_cast<NarrowOperand>(y));
      low += x0 * y;
      high += x1 * y;
    }
    ASSERT_EQ(two_low(sum), low) << run;
    ASSERT_EQ(two_high(sum), high) << run;
  }
}

TEST(PackedProducts, TwoAddUpInACascade) {
  add_up_two(-128, 127, kTwoCascade);
  add_up_two(-127, 127, kTwoSymmetric);
}

}  // namespace
}  // namespace flexllm::kernels
