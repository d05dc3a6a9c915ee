#include <gtest/gtest.h>

#include <cmath>
#include <numbers>
#include <vector>

#include "formats/model_config.h"

namespace flexllm::formats {
namespace {

constexpr uint32_t kHeadDim = 64;

TEST(RopeFrequencies, FallGeometricallyFromOne) {
  RopeConfig rope;
  rope.theta = 100000.0;
  const auto frequencies = rope_frequencies(rope, kHeadDim);
  ASSERT_EQ(frequencies.size(), 32u);
  EXPECT_EQ(frequencies[0], 1.0);
  EXPECT_NEAR(frequencies[16], std::pow(100000.0, -0.5), 1e-15);
  rope.scaling = RopeConfig::Scaling::linear;
  rope.factor = 4;
  EXPECT_DOUBLE_EQ(rope_frequencies(rope, kHeadDim)[7], frequencies[7] / 4);
}

// Llama 3.2's numbers: wavelengths below 8192/4 stay, above 8192 are 32 times as long, and the
// blend between is monotone and joins both ends.
TEST(RopeFrequencies, AreScaledByWavelengthForLlama3) {
  RopeConfig rope;
  rope.theta = 500000.0;
  const auto plain = rope_frequencies(rope, kHeadDim);
  rope.scaling = RopeConfig::Scaling::llama3;
  rope.factor = 32;
  const auto scaled = rope_frequencies(rope, kHeadDim);
  int kept = 0, blended = 0, divided = 0;
  for (size_t i = 0; i < plain.size(); ++i) {
    const double wavelength = 2 * std::numbers::pi / plain[i];
    const double ratio = plain[i] / scaled[i];
    if (wavelength < 8192.0 / 4) {
      EXPECT_EQ(ratio, 1.0);
      ++kept;
    } else if (wavelength > 8192) {
      EXPECT_DOUBLE_EQ(ratio, 32.0);
      ++divided;
    } else {
      EXPECT_GT(ratio, 1.0);
      EXPECT_LT(ratio, 32.0);
      ++blended;
    }
    if (i > 0) {
      EXPECT_LT(scaled[i], scaled[i - 1]);
    }
  }
  EXPECT_EQ(kept + blended + divided, 32);
  EXPECT_GT(kept, 0);
  EXPECT_GT(blended, 0);
  EXPECT_GT(divided, 0);
}

// A GGUF file says the same by one divisor for each frequency.
TEST(RopeFrequencies, AgreeBetweenFactorsAndParameters) {
  RopeConfig parameters;
  parameters.theta = 500000.0;
  parameters.scaling = RopeConfig::Scaling::llama3;
  parameters.factor = 8;
  RopeConfig factors;
  factors.theta = 500000.0;
  const auto plain = rope_frequencies(factors, kHeadDim);
  const auto expected = rope_frequencies(parameters, kHeadDim);
  for (size_t i = 0; i < plain.size(); ++i) {
    factors.frequency_factors.push_back(static_cast<float>(plain[i] / expected[i]));
  }
  const auto actual = rope_frequencies(factors, kHeadDim);
  for (size_t i = 0; i < plain.size(); ++i) {
    EXPECT_NEAR(actual[i] / expected[i], 1, 1e-7);
  }
}

}  // namespace
}  // namespace flexllm::formats
