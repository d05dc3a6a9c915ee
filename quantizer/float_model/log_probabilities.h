// How well a float model predicts windows of text.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "quantizer/float_model/float_model.h"

namespace flexllm::quantizer {

// Tokens that are read together, and from which row on their successors are predicted: rows
// first_row .. tokens.size() - 2.
struct ScoredWindow {
  std::vector<uint32_t> tokens;
  size_t first_row = 0;

  size_t predictions() const {
    return tokens.size() > first_row + 1 ? tokens.size() - 1 - first_row : 0;
  }
};

// Natural logarithms of the probability of every predicted token, in order. Windows are taken
// through the model some 16,384 tokens at a time; `progress` (may be empty) gets the values of each
// such batch as they come.
std::vector<double> target_log_probabilities(
    const FloatModel& model, std::span<const ScoredWindow> windows,
    const std::function<void(std::span<const double>)>& progress = {});

// The first windows that make up a batch of bounded size, at least one of a list that is not empty.
std::span<const ScoredWindow> next_batch(std::span<const ScoredWindow> windows);

// The final rows of a batch that predict something: `inputs` of lm_head, and the token that follows
// each.
struct Predictions {
  Matrix inputs;  // [predictions][hidden]
  std::vector<uint32_t> targets;
};
// `tokens`: the batch behind the model's last layer.
Predictions predictions_of(const FloatModel& model, std::span<const ScoredWindow> batch,
                           const TokenBatch& tokens);

TokenBatch embed(const FloatModel& model, std::span<const ScoredWindow> batch);

}  // namespace flexllm::quantizer
