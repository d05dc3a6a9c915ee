// Comparing models: a model with itself, with a neighbour, and through another basis.
#include "quantizer/float_model/comparison.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <random>
#include <stdexcept>
#include <vector>

#include "quantizer/tests/memory_checkpoint.h"

namespace flexllm::quantizer {
namespace {

using testing::MemoryCheckpoint;

formats::ModelConfig wide_config() {
  formats::ModelConfig config = testing::tiny_config();
  config.vocab = 9000;  // logits come in two parts
  return config;
}

std::vector<ScoredWindow> some_windows() {
  std::mt19937 random(3);
  std::vector<ScoredWindow> windows;
  for (const size_t length : {30u, 12u}) {
    ScoredWindow window{std::vector<uint32_t>(length), length / 3};
    for (uint32_t& token : window.tokens) token = static_cast<uint32_t>(random() % 9000);
    windows.push_back(window);
  }
  return windows;
}

std::vector<std::vector<double>> log_softmax(const FloatModel& model, const ScoredWindow& window) {
  const TokenBatch batch = model.run(std::vector<std::span<const uint32_t>>{window.tokens});
  const Matrix logits = model.logits(model.head_inputs(batch), 0, model.config().vocab);
  std::vector<std::vector<double>> rows;
  for (size_t r = window.first_row; r + 1 < window.tokens.size(); ++r) {
    double sum = 0;
    for (const float logit : logits.row(r)) sum += std::exp(double{logit});
    auto& row = rows.emplace_back();
    for (const float logit : logits.row(r)) row.push_back(logit - std::log(sum));
  }
  return rows;
}

TEST(Compare, AgreesWithThePlainFormula) {
  Workers workers(2);
  MemoryCheckpoint left(wide_config());
  MemoryCheckpoint right(wide_config());
  for (float& w : right.values("model.layers.1.mlp.down_proj.weight")) w *= 0.5f;
  const FloatModel a(left, {}, workers);
  const FloatModel b(right, {}, workers);
  const auto windows = some_windows();
  size_t reported = 0;
  const Comparison found = compare({a}, {b}, windows, [&](size_t n) { reported = n; });
  EXPECT_EQ(reported, found.divergence.size());
  size_t at = 0;
  size_t same = 0;
  for (const ScoredWindow& window : windows) {
    const auto p = log_softmax(a, window);
    const auto q = log_softmax(b, window);
    for (size_t r = 0; r < p.size(); ++r, ++at) {
      double divergence = 0;
      for (size_t t = 0; t < p[r].size(); ++t)
        divergence += std::exp(p[r][t]) * (p[r][t] - q[r][t]);
      EXPECT_GT(divergence, 1e-4);
      EXPECT_NEAR(found.divergence.at(at), divergence, 1e-5);
      const uint32_t target = window.tokens[window.first_row + r + 1];
      EXPECT_NEAR(found.log_probabilities_a.at(at), p[r][target], 1e-5);
      EXPECT_NEAR(found.log_probabilities_b.at(at), q[r][target], 1e-5);
      same += std::ranges::max_element(p[r]) - p[r].begin() ==
                      std::ranges::max_element(q[r]) - q[r].begin()
                  ? 1
                  : 0;
    }
  }
  EXPECT_EQ(at, found.divergence.size());
  EXPECT_EQ(found.same_top, same);
  ASSERT_EQ(found.layer_error.size(), 4u);
  EXPECT_EQ(found.layer_error[0], 0);  // embedding
  EXPECT_EQ(found.layer_error[1], 0);  // layer 0
  EXPECT_GT(found.layer_error[2], 0.01);
}

TEST(Compare, AModelIsItself) {
  Workers workers(2);
  const MemoryCheckpoint checkpoint(wide_config());
  const FloatModel model(checkpoint, {}, workers);
  const Comparison found = compare({model}, {model}, some_windows());
  for (const double divergence : found.divergence) EXPECT_NEAR(divergence, 0, 1e-12);
  EXPECT_EQ(found.same_top, found.divergence.size());
  for (const double error : found.layer_error) EXPECT_EQ(error, 0);
}

// The order of the hidden elements reversed: a basis whose matrix is the reversal.
TEST(Compare, StatesAreComparedInTheCheckpointsBasis) {
  Workers workers(2);
  const formats::ModelConfig config = wide_config();
  const MemoryCheckpoint original(config);
  MemoryCheckpoint reversed(config);
  const auto reverse_columns = [&](const std::string& name) {
    auto& values = reversed.values(name);
    for (auto at = values.begin(); at != values.end(); at += config.hidden) {
      std::reverse(at, at + config.hidden);
    }
  };
  const auto reverse_rows = [&](const std::string& name, size_t width) {
    auto& values = reversed.values(name);
    for (size_t r = 0; r < config.hidden / 2; ++r) {
      std::swap_ranges(
          values.begin() + static_cast<std::ptrdiff_t>(r * width),
          values.begin() + static_cast<std::ptrdiff_t>((r + 1) * width),
          values.begin() + static_cast<std::ptrdiff_t>((config.hidden - 1 - r) * width));
    }
  };
  for (const formats::TensorInfo& info : original.tensors()) {
    const std::string& name = info.name;
    if (name.ends_with("o_proj.weight") || name.ends_with("down_proj.weight")) {
      reverse_rows(name, info.shape[1]);
    } else {
      reverse_columns(name);
    }
  }
  Matrix basis(config.hidden, config.hidden);
  for (size_t i = 0; i < config.hidden; ++i) basis(i, config.hidden - 1 - i) = 1;
  const FloatModel a(original, {}, workers);
  const FloatModel b(reversed, {}, workers);
  const Comparison blind = compare({a}, {b}, some_windows());
  const Comparison found = compare({a}, {b, &basis}, some_windows());
  for (size_t layer = 0; layer < found.layer_error.size(); ++layer) {
    EXPECT_GT(blind.layer_error[layer], 0.5);
    EXPECT_LT(found.layer_error[layer], 1e-5);
  }
  for (const double divergence : found.divergence) EXPECT_NEAR(divergence, 0, 1e-8);
}

TEST(Compare, RefusesOtherVocabularies) {
  Workers workers(1);
  const MemoryCheckpoint left(wide_config());
  formats::ModelConfig config = wide_config();
  config.vocab = 50;
  const MemoryCheckpoint right(config);
  const FloatModel a(left, {}, workers);
  const FloatModel b(right, {}, workers);
  EXPECT_THROW(compare({a}, {b}, some_windows()), std::invalid_argument);
}

}  // namespace
}  // namespace flexllm::quantizer
