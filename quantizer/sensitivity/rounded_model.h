// A model whose matrices were rounded twice, to a low and to a high precision, so that any choice
// between the two can be looked at in the float model. Plain data once it is made; one thread uses
// it at a time, with its Workers.
//
// Memory: a byte for every weight and precision.
#pragma once

#include <cstdint>
#include <functional>
#include <set>
#include <span>
#include <vector>

#include "formats/checkpoint.h"
#include "quantizer/algebra/matrix.h"
#include "quantizer/algebra/workers.h"
#include "quantizer/float_model/float_model.h"
#include "quantizer/rounding/rounder.h"
#include "quantizer/scheme.h"

namespace flexllm::quantizer {

// The matrices that have the high precision.
using Raised = std::set<MatrixId>;

// `low` with `high` for the matrices of `raised`.
Scheme raise(Scheme low, const Raised& raised, const MatrixPrecision& high);

// The matrices of layers that a budget may raise: those with low.linears, in order. What a scheme
// names as an exception stays as it is.
std::vector<MatrixId> raisable(const Scheme& low, uint32_t layers);

class RoundedModel {
 public:
  struct Options {
    Scheme low;
    MatrixPrecision high;
    // Each rounds the whole model, the one at low.linears, the other at `high`; lm_head is rounded
    // by the first.
    Rounder& low_rounder;
    Rounder& high_rounder;
    std::function<void(double)> progress;  // share of the work done, 0..1; may be empty
  };

  // `checkpoint`, in the basis of the scheme's rotations, and `workers` must outlive it. Throws
  // what FloatModel and the rounders throw.
  RoundedModel(const formats::Checkpoint& checkpoint, const Options& options, Workers& workers);

  const formats::Checkpoint& checkpoint() const { return checkpoint_; }
  Workers& workers() const { return workers_; }
  const Scheme& low() const { return low_; }
  Scheme scheme(const Raised& raised) const { return raise(low_, raised, high_); }
  std::vector<MatrixId> raisable() const { return quantizer::raisable(low_, layers()); }
  uint32_t layers() const { return static_cast<uint32_t>(layers_.size()); }

  // What a layer computes with, each matrix as rounded.
  LayerWeights layer(uint32_t layer, const Raised& raised) const;

  // Puts one matrix of a layer in its place, at one of the precisions.
  void put(const MatrixId& id, bool high, LayerWeights& weights) const;

  // Rows of lm_head as rounded: [tokens][hidden], from token `first` of the vocabulary on.
  Matrix head(uint32_t first, uint32_t tokens) const;

 private:
  struct Layer {
    LayerWeights rest;  // its matrices have no elements
    LayerRows low, high;
  };

  void round_head(Rounder& rounder);

  const formats::Checkpoint& checkpoint_;
  Workers& workers_;
  const Scheme low_;
  const MatrixPrecision high_;
  std::vector<Layer> layers_;
  std::vector<QuantizedRow> head_;
};

}  // namespace flexllm::quantizer
