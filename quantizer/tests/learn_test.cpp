// Learning rotations: the gradient is the loss's, steps stay orthogonal and go down, and the result
// is a rotation like any other.
#include "quantizer/rotation/learn.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <cmath>
#include <cstring>
#include <filesystem>
#include <random>
#include <stdexcept>
#include <utility>

#include "quantizer/algebra/products.h"
#include "quantizer/rotation/cayley.h"
#include "quantizer/tests/memory_checkpoint.h"

namespace flexllm::quantizer {
namespace {

Matrix random_matrix(size_t rows, size_t cols, uint32_t seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  Matrix m(rows, cols);
  for (float& value : m.elements()) value = normal(random);
  return m;
}

double distance_from_orthogonal(const Matrix& m, Workers& workers) {
  Matrix product(m.rows(), m.rows());
  multiply_transposed(product, m, m, workers);
  double largest = 0;
  for (size_t i = 0; i < m.rows(); ++i) {
    for (size_t j = 0; j < m.rows(); ++j) {
      largest = std::max(largest, std::fabs(double{product(i, j)} - (i == j ? 1 : 0)));
    }
  }
  return largest;
}

std::vector<StepSamples> some_samples() {
  return {{random_matrix(20, 24, 1), 24, false, 0.5},  // three pieces of 8 share a step
          {random_matrix(12, 16, 2), 10, true, 2.0}};  // groups of 10 and 6
}

TEST(StepLoss, IsTheSumOfSquaredRanges) {
  Workers workers(1);
  Matrix identity(2, 2, {1, 0, 0, 1});
  Matrix gradient(2, 2);
  const std::vector<StepSamples> samples = {{Matrix(1, 4, {1, -2, 3, 0}), 4, false, 2},
                                            {Matrix(1, 4, {1, -2, 3, 0}), 2, true, 1}};
  EXPECT_EQ(step_loss(samples, identity, gradient, workers), 2 * 25 + 4 + 9);
}

TEST(StepLoss, HasTheGradientOfFiniteDifferences) {
  Workers workers(2);
  const auto samples = some_samples();
  Matrix rotation = made_orthogonal(random_matrix(8, 8, 3), workers);
  Matrix gradient(8, 8);
  step_loss(samples, rotation, gradient, workers);
  for (size_t i = 0; i < 8; ++i) {
    for (size_t j = 0; j < 8; ++j) {
      constexpr float kStep = 1e-3f;
      Matrix unused(8, 8);
      Matrix moved = rotation;
      moved(i, j) += kStep;
      const double above = step_loss(samples, moved, unused, workers);
      moved(i, j) -= 2 * kStep;
      const double below = step_loss(samples, moved, unused, workers);
      const double expected = (above - below) / (2 * double{kStep});
      EXPECT_NEAR(gradient(i, j), expected, 0.02 * std::fabs(expected) + 0.5) << i << " " << j;
    }
  }
}

TEST(CayleyDescent, StaysOrthogonalAndTurnsByTheAngle) {
  Workers workers(1);
  const Matrix start = made_orthogonal(random_matrix(24, 24, 4), workers);
  CayleyDescent descent(start, 0);
  descent.step(random_matrix(24, 24, 5), 0.01, workers);
  EXPECT_LT(distance_from_orthogonal(descent.point(), workers), 1e-5);
  double moved = 0;
  for (size_t i = 0; i < 24 * 24; ++i) {
    moved += std::pow(double{descent.point().elements()[i]} - start.elements()[i], 2);
  }
  EXPECT_NEAR(std::sqrt(moved / 24), 0.01, 1e-4);
  const Matrix before = descent.point();
  descent.step(Matrix(24, 24), 0.01, workers);
  EXPECT_EQ(std::memcmp(before.elements().data(), descent.point().elements().data(),
                        before.elements().size_bytes()),
            0);
}

// Of <point, target> the descent's maximum over rotations is the target itself.
TEST(CayleyDescent, FindsARotation) {
  Workers workers(1);
  const Matrix start = made_orthogonal(random_matrix(10, 10, 6), workers);
  Matrix turn(10, 10);
  for (size_t i = 0; i < 10; ++i) turn(i, i) = 1;
  turn(0, 0) = turn(1, 1) = std::cos(0.7f);
  turn(0, 1) = std::sin(0.7f);
  turn(1, 0) = -turn(0, 1);
  Matrix target(10, 10);
  multiply(target, start, turn, workers);
  Matrix gradient = target;
  for (float& value : gradient.elements()) value = -value;
  CayleyDescent descent(start, 0.5);
  for (int i = 0; i < 200; ++i) descent.step(gradient, 0.05 * (1 - i / 200.0), workers);
  for (size_t i = 0; i < 100; ++i) {
    EXPECT_NEAR(descent.point().elements()[i], target.elements()[i], 0.02);
  }
}

formats::ModelConfig learned_config() {
  formats::ModelConfig config = testing::tiny_config();
  config.layers = 2;
  return config;
}

std::vector<std::vector<uint32_t>> some_windows() {
  std::mt19937 random(1);
  std::vector<std::vector<uint32_t>> windows(3, std::vector<uint32_t>(30));
  for (auto& window : windows) {
    for (uint32_t& token : window) token = static_cast<uint32_t>(random() % 70);
  }
  return windows;
}

TEST(LearnRotations, LowersTheLossTheSameOnAnyNumberOfThreads) {
  const testing::MemoryCheckpoint checkpoint(learned_config());
  const auto windows = some_windows();
  Workers one(1);
  Workers two(2);
  for (const char* name : {"w4g64a4kv8-lm8-r124", "w4a8kv8-lm8-r1", "w8a4kv8-lm8-r2"}) {
    const Scheme scheme = Scheme::parse(name);
    LearnOptions options;
    options.steps = 15;
    options.rows = 40;
    const LearnedRotations a = learn_rotations(checkpoint, scheme, windows, options, one);
    const LearnedRotations b = learn_rotations(checkpoint, scheme, windows, options, two);
    EXPECT_EQ(digest(a.rotations), digest(b.rotations)) << name;
    EXPECT_EQ(a.rotations.residual.empty(), !scheme.rotate_residual);
    EXPECT_EQ(a.rotations.values.size(), scheme.rotate_values ? 2u : 0u);
    ASSERT_EQ(a.loss_before.size(), a.loss_after.size());
    ASSERT_EQ(a.loss_before.size(),
              (scheme.rotate_residual ? 1u : 0u) + (scheme.rotate_values ? 2u : 0u));
    for (size_t i = 0; i < a.loss_before.size(); ++i) {
      EXPECT_LT(a.loss_after[i], a.loss_before[i]) << name;
    }
  }
}

TEST(LearnRotations, GoesOnWhereItWasStopped) {
  const testing::MemoryCheckpoint checkpoint(learned_config());
  const auto windows = some_windows();
  const Scheme scheme = Scheme::parse("w4g64a4kv8-lm8-r124");
  Workers workers(1);
  const auto output =
      std::filesystem::path(::testing::TempDir()) / ("learned-" + std::to_string(::getpid()));
  LearnOptions options;
  options.steps = 25;
  options.rows = 40;
  double stop_at = 2;
  std::vector<double> shares;
  options.progress = [&](double share) {
    if (share > stop_at) throw std::runtime_error("stopped");
    if (share > 0.3) shares.push_back(share);  // the text has been looked at
  };
  const auto learn = [&] {
    const std::string key = learning_key(scheme, windows, options);
    PartialFolder partial(output, "rotation.", key);
    options.partial = &partial;
    LearnedRotations learned = learn_rotations(checkpoint, scheme, windows, options, workers);
    partial.finish();
    return learned;
  };
  const LearnedRotations whole = learn();
  EXPECT_EQ(shares.size(), 3 * 26u - 1);  // step 0 of R1 is at 0.3
  // Within R1, of which 20 of 26 steps are kept; within the last R2, after which two rotations are.
  const std::pair<double, size_t> stops[] = {{0.85, 6 + 26 + 26}, {0.98, 26}};
  for (const auto& [share, steps] : stops) {
    stop_at = share;
    EXPECT_THROW(learn(), std::runtime_error);
    stop_at = 2;
    shares.clear();
    const LearnedRotations resumed = learn();
    EXPECT_EQ(shares.size(), steps) << share;
    EXPECT_EQ(digest(resumed.rotations), digest(whole.rotations));
    EXPECT_EQ(resumed.loss_before, whole.loss_before);
    EXPECT_EQ(resumed.loss_after, whole.loss_after);
    EXPECT_FALSE(std::filesystem::exists(output.string() + ".partial"));
  }
  // With another key from the start.
  stop_at = 0.85;
  EXPECT_THROW(learn(), std::runtime_error);
  stop_at = 2;
  options.seed = 1;
  shares.clear();
  learn();
  EXPECT_EQ(shares.size(), 3 * 26u - 1);
}

TEST(LearnRotations, RefusesWhatItCannotLearn) {
  const testing::MemoryCheckpoint checkpoint(learned_config());
  Workers workers(1);
  const auto windows = some_windows();
  const auto learn = [&](const char* scheme, const std::vector<std::vector<uint32_t>>& text) {
    learn_rotations(checkpoint, Scheme::parse(scheme), text, {}, workers);
  };
  EXPECT_THROW(learn("w4a4kv8-lm8-r4", windows), std::invalid_argument);
  EXPECT_THROW(learn("w4a4kv8-lm8-r1", {}), std::invalid_argument);
  EXPECT_THROW(learn("w4a4kv8-lm8-r1", {{}}), std::invalid_argument);
  EXPECT_THROW(learn("w4a4kv8-lm8-r1", {{70}}), std::invalid_argument);
  EXPECT_THROW(learn("w4a4kv8-lm8-r1:2.o=w8a8", windows), std::invalid_argument);
}

}  // namespace
}  // namespace flexllm::quantizer
