// How a packer gets integers for weights: a strategy that rounds one matrix at a time, in the order
// in which the model applies them. One thread calls it; it spreads its work over the workers that
// it is given, and its result does not depend on their number.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "quantizer/algebra/matrix.h"
#include "quantizer/algebra/workers.h"
#include "quantizer/rounding/weights.h"
#include "quantizer/scheme.h"

namespace flexllm::quantizer {

class Rounder {
 public:
  virtual ~Rounder() = default;

  // Says all that the result depends on beside the checkpoint and the scheme, so that a run which
  // was stopped goes on only with the same: "nearest", or a method with its settings and a digest
  // of its data.
  virtual std::string key() const = 0;

  // Rounds a matrix [outputs][inputs] as the kernels apply it: rows q, k, v stacked; gate, then up;
  // down with the inverse of R4 where the scheme has it. Called once for each matrix of a layer,
  // whole, in the order of MatrixKind, layer after layer; then for lm_head in pieces of whole rows,
  // in order. Returns a row for each row. Values are finite. What it throws ends the packing.
  virtual std::vector<QuantizedRow> round(const MatrixId& id, ConstView weights,
                                          const MatrixPrecision& precision, Workers& workers) = 0;

  // In place of round(), for a matrix whose rows an earlier run has finished. A strategy that
  // follows activations through the rounded model takes them from here.
  virtual void resume(const MatrixId& id, std::span<const QuantizedRow> rows, Workers& workers) = 0;
};

// Each row for itself (quantize_row()).
class NearestRounder final : public Rounder {
 public:
  std::string key() const override { return "nearest"; }
  std::vector<QuantizedRow> round(const MatrixId& id, ConstView weights,
                                  const MatrixPrecision& precision, Workers& workers) override;
  void resume(const MatrixId& /*id*/, std::span<const QuantizedRow> /*rows*/,
              Workers& /*workers*/) override {}
};

}  // namespace flexllm::quantizer
