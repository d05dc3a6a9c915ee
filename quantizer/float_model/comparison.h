// How far two models are from each other on a text: what they predict, and their residual streams
// layer by layer.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "quantizer/float_model/float_model.h"
#include "quantizer/float_model/log_probabilities.h"

namespace flexllm::quantizer {

// A model whose states stand in another basis than its checkpoint's: stored = original * basis.
struct ComparedModel {
  const FloatModel& model;
  const Matrix* basis = nullptr;  // [hidden][hidden], orthogonal; none: the checkpoint's own
};

struct Comparison {
  // Of every prediction, in order.
  std::vector<double> divergence;                                // KL(a || b) in nats
  std::vector<double> log_probabilities_a, log_probabilities_b;  // of the token that follows
  uint64_t same_top = 0;                                         // both find one token most likely
  // Root mean square of the difference of the residual streams over that of a's, over all tokens
  // that were read: after the embedding, then after each layer. Empty if layers or sizes differ.
  std::vector<double> layer_error;
};

// Takes both models through the windows together, a batch and a layer at a time. `progress` (may be
// empty) gets the predictions made so far. Throws std::invalid_argument if the vocabularies differ.
Comparison compare(const ComparedModel& a, const ComparedModel& b,
                   std::span<const ScoredWindow> windows,
                   const std::function<void(size_t)>& progress = {});

}  // namespace flexllm::quantizer
