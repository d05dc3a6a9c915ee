// GPTQ (Frantar et al., arXiv 2210.17323): rounds the weights of a matrix one input after another,
// each with what the errors of those before it would have it correct, so that the matrix's outputs
// over the calibration text change least.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "quantizer/algebra/matrix.h"
#include "quantizer/algebra/workers.h"
#include "quantizer/rounding/weights.h"

namespace flexllm::quantizer {

struct GptqOptions {
  // In which order inputs are rounded: as they stand, or the most active first. Groups of 64 inputs
  // are fixed before, so either order fits them.
  enum class Order { natural, descending };

  uint32_t bits = 4;
  bool grouped = false;
  uint32_t block = 128;   // inputs whose corrections are made one by one; only speed depends on it
  double damping = 0.01;  // added to the diagonal of the Hessian, in units of its mean
  Order order = Order::descending;
};

// `weights` is [outputs][inputs]; `hessian` is X^T X over the inputs x (rows of X) that the matrix
// sees when it runs quantised, [inputs][inputs], symmetric, in any unit. Scales are chosen first,
// by squared errors weighted with the diagonal. Inputs that were always 0 are rounded to nearest;
// so is everything with the identity for a Hessian.
//
// If the damped Hessian is not positive definite the damping is raised tenfold until it is. The
// result does not depend on the number of workers. Throws std::invalid_argument for shapes that do
// not fit, std::domain_error for a Hessian that is not finite.
std::vector<QuantizedRow> gptq(ConstView weights, ConstView hessian, const GptqOptions& options,
                               Workers& workers);

// What the rounding changes in the outputs: the sum over rows of e H e^T, e the errors of a row.
double output_error(ConstView weights, std::span<const QuantizedRow> rows, ConstView hessian,
                    Workers& workers);

}  // namespace flexllm::quantizer
