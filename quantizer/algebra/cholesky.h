// Factors of symmetric positive definite matrices, in binary64: GPTQ's Hessians are badly
// conditioned. Blocks of a fixed size on the workers; the bits do not depend on their number.
#pragma once

#include <stdexcept>

#include "quantizer/algebra/matrix.h"
#include "quantizer/algebra/workers.h"

namespace flexllm::quantizer {

// The matrix is not positive definite (or holds a NaN): elimination met a pivot that is not
// positive.
class NotPositiveDefinite : public std::runtime_error {
 public:
  explicit NotPositiveDefinite(size_t pivot_row);
  size_t pivot() const { return pivot_; }

 private:
  size_t pivot_;
};

// Replaces a [n][n] by its lower factor l, a = l l^T; reads the lower triangle, zeroes the strictly
// upper one. Throws NotPositiveDefinite (a is then spoilt) or std::invalid_argument (not square).
// n^3 / 3 multiplications.
void factor_cholesky(DoubleView a, Workers& workers);

// Replaces a lower triangular l, with zeros above the diagonal, by its inverse. n^3 / 3
// multiplications.
void invert_lower(DoubleView l, Workers& workers);

// Replaces a by the upper triangular u with u^T u = a^-1: what GPTQ walks along (Frantar et al.,
// arXiv 2210.17323, step 3). Without forming the inverse: with j the reversal of the order and
// j a j = l l^T, u = j l^-1 j.
void factor_inverse(DoubleView a, Workers& workers);

// Replaces a by its inverse, both triangles.
void invert_positive(DoubleView a, Workers& workers);

}  // namespace flexllm::quantizer
