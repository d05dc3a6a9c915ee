// How far rounded models are from the unquantised one on a text. One thread uses it, with the
// Workers of the model.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "quantizer/float_model/float_model.h"
#include "quantizer/sensitivity/rounded_model.h"

namespace flexllm::quantizer {

// In nats per token: means over a text, with their standard errors.
struct Distance {
  // KL(unquantised || rounded) of what is predicted behind every token.
  double divergence = 0;
  double divergence_error = 0;
  // What the rounded model loses in -log p of the token that follows. On text that the
  // unquantised model wrote its expectation is the divergence; its error is larger.
  double loss = 0;
  double loss_error = 0;
};

// The unquantised model's predictions for some windows of text. Memory: its final rows, and beside
// them the logits of 1,024 tokens for a sixth of the vocabulary or less.
class Reference {
 public:
  using Windows = std::vector<std::vector<uint32_t>>;

  // Runs the model. Throws std::invalid_argument as FloatModel::embed() does, and for windows
  // of one token, behind which nothing follows.
  Reference(const formats::Checkpoint& checkpoint, Windows windows, Workers& workers);

  const Windows& windows() const { return windows_; }
  size_t tokens() const { return inputs_.rows(); }
  std::vector<std::span<const uint32_t>> views() const;

  // The distance of each of `models`' rows that enter `rounded`'s lm_head: `inputs` is
  // [models * tokens()][hidden], one model's windows behind another's. `progress` (may be empty)
  // gets the share done.
  std::vector<Distance> distances(const RoundedModel& rounded, ConstView inputs,
                                  const std::function<void(double)>& progress = {}) const;

 private:
  Windows windows_;
  FloatModel model_;
  Matrix inputs_;                 // of lm_head
  std::vector<double> log_sums_;  // of the exponentials of each row's logits
  // Of each row; -1 for the last of a window.
  std::vector<int64_t> targets_;
};

}  // namespace flexllm::quantizer
