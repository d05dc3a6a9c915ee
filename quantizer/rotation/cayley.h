// Descent on the orthogonal matrices: Cayley SGD with momentum (Li, Fuxin and Todorovic, ICLR 2020,
// arXiv 2002.01113, algorithm 1), with steps measured as angles. One thread uses a CayleyDescent.
#pragma once

#include "quantizer/algebra/matrix.h"
#include "quantizer/algebra/workers.h"

namespace flexllm::quantizer {

class CayleyDescent {
 public:
  // Starts from a square orthogonal matrix; `momentum` in [0, 1) is what a step keeps of the one
  // before it.
  CayleyDescent(Matrix start, double momentum);
  // Goes on from a descent's point() and velocity().
  CayleyDescent(Matrix point, Matrix velocity, double momentum);

  const Matrix& point() const { return point_; }
  const Matrix& velocity() const { return velocity_; }

  // Moves against `gradient` (of a loss by the elements of the point, of the point's shape), along
  // a curve of orthogonal matrices, so that directions turn by `angle` radians in the quadratic
  // mean, less where the iteration would not converge. A gradient of zeros, with no momentum,
  // moves nothing.
  void step(const Matrix& gradient, double angle, Workers& workers);

 private:
  Matrix point_;
  Matrix velocity_;
  double momentum_;
};

// Makes the rows of a square matrix orthonormal, in binary64: a = l q with l l^T = a a^T. Throws
// NotPositiveDefinite if they depend on each other.
void make_orthogonal(DoubleMatrix& a, Workers& workers);
Matrix made_orthogonal(const Matrix& a, Workers& workers);

}  // namespace flexllm::quantizer
