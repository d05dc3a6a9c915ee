// How a packer gets integers for weights: a strategy that rounds a model layer by layer, from the
// first to the last. One thread calls it; results do not depend on the number of workers.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "quantizer/algebra/matrix.h"
#include "quantizer/algebra/workers.h"
#include "quantizer/float_model/float_model.h"
#include "quantizer/rounding/weights.h"
#include "quantizer/scheme.h"

namespace flexllm::quantizer {

// The rounded rows of a layer, by MatrixKind: q, k and v stacked; o; gate, then up; down.
using LayerRows = std::array<std::vector<QuantizedRow>, 4>;

class Rounder {
 public:
  virtual ~Rounder() = default;

  // Says all that the result depends on beside the checkpoint and the scheme, so that a run that
  // was stopped goes on only with the same: "rtn", or a method with its settings and a digest of
  // its data. One line.
  virtual std::string key() const = 0;

  // Rounds the matrices of a layer, as FloatModel::load_layer() gives them (`down` with R4's
  // inverse where the scheme has it), to the precisions that `scheme` gives them. Called for every
  // layer in order, unless resume_layer() is. Values are finite. What it throws ends the packing.
  virtual LayerRows round_layer(uint32_t layer, LayerWeights weights, const Scheme& scheme,
                                Workers& workers) = 0;

  // In place of round_layer(), with what it gave in an earlier run: a strategy that follows
  // activations through the rounded model takes them through this layer.
  virtual void resume_layer(uint32_t layer, LayerWeights weights, const LayerRows& rows,
                            const Scheme& scheme, Workers& workers) = 0;

  // Rows of lm_head, after all layers, in pieces in order.
  virtual std::vector<QuantizedRow> round_lm_head(ConstView weights, const Scheme& scheme,
                                                  Workers& workers) = 0;
};

// Each row for itself (quantize_row()).
class NearestRounder final : public Rounder {
 public:
  std::string key() const override { return "rtn"; }
  LayerRows round_layer(uint32_t layer, LayerWeights weights, const Scheme& scheme,
                        Workers& workers) override;
  void resume_layer(uint32_t /*layer*/, LayerWeights /*weights*/, const LayerRows& /*rows*/,
                    const Scheme& /*scheme*/, Workers& /*workers*/) override {}
  std::vector<QuantizedRow> round_lm_head(ConstView weights, const Scheme& scheme,
                                          Workers& workers) override;
};

// quantize_row() for every row.
std::vector<QuantizedRow> round_to_nearest(ConstView weights, const MatrixPrecision& precision,
                                           Workers& workers);

// The parts of a matrix of a layer, in the order in which their rows are stacked.
std::vector<Matrix*> parts_of(MatrixKind kind, LayerWeights& weights);

// Puts what rounded rows stand for in the place of a matrix. Throws std::invalid_argument for rows
// of another shape.
void put_rows(MatrixKind kind, std::span<const QuantizedRow> rows, LayerWeights& weights);

}  // namespace flexllm::quantizer
