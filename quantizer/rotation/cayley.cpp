#include "quantizer/rotation/cayley.h"

#include <algorithm>
#include <cmath>
#include <stdexcept>
#include <utility>

#include "quantizer/algebra/cholesky.h"
#include "quantizer/algebra/products.h"

namespace flexllm::quantizer {
namespace {

// Bound on half the step times the norm of the skew matrix, within which the iteration contracts.
constexpr double kContraction = 0.5;
constexpr int kIterations = 4;  // the residue is below 0.5^4 of a step, and is taken off afterwards

double frobenius(const Matrix& m) {
  double sum = 0;
  for (const float value : m.elements()) sum += double{value} * value;
  return std::sqrt(sum);
}

// The largest sum of magnitudes of a row: bounds every other norm of a symmetric or skew matrix.
double largest_row_sum(const Matrix& m) {
  double largest = 0;
  for (size_t r = 0; r < m.rows(); ++r) {
    double sum = 0;
    for (const float value : m.row(r)) sum += std::fabs(double{value});
    largest = std::max(largest, sum);
  }
  return largest;
}

}  // namespace

void make_orthogonal(DoubleMatrix& a, Workers& workers) {
  // Once loses what the conditioning of a a^T loses; a second time starts from rows that are nearly
  // orthonormal.
  for (int pass = 0; pass < 2; ++pass) {
    DoubleMatrix factor(a.rows(), a.rows());
    multiply_transposed(factor, a, a, workers);
    factor_cholesky(factor, workers);
    invert_lower(factor, workers);
    DoubleMatrix rows(a.rows(), a.cols());
    multiply(rows, factor, a, workers);
    a = std::move(rows);
  }
}

Matrix made_orthogonal(const Matrix& a, Workers& workers) {
  DoubleMatrix wide(a.rows(), a.cols());
  std::copy(a.elements().begin(), a.elements().end(), wide.elements().begin());
  make_orthogonal(wide, workers);
  Matrix out(a.rows(), a.cols());
  std::transform(wide.elements().begin(), wide.elements().end(), out.elements().begin(),
                 [](double value) { return static_cast<float>(value); });
  return out;
}

CayleyDescent::CayleyDescent(Matrix start, double momentum)
    : CayleyDescent(start, Matrix(start.rows(), start.cols()), momentum) {}

CayleyDescent::CayleyDescent(Matrix point, Matrix velocity, double momentum)
    : point_(std::move(point)), velocity_(std::move(velocity)), momentum_(momentum) {
  if (point_.rows() == 0 || point_.rows() != point_.cols() || velocity_.rows() != point_.rows() ||
      velocity_.cols() != point_.cols()) {
    throw std::invalid_argument("CayleyDescent: the start is not square");
  }
}

void CayleyDescent::step(const Matrix& gradient, double angle, Workers& workers) {
  const size_t n = point_.rows();
  if (gradient.rows() != n || gradient.cols() != n) {
    throw std::invalid_argument("CayleyDescent: the gradient has another shape");
  }
  // The sizes of gradients do not matter, only how they compare over the steps.
  const double size = frobenius(gradient);
  const double scale = size > 0 ? 1 / size : 0;
  for (size_t i = 0; i < n * n; ++i) {
    velocity_.elements()[i] =
        static_cast<float>(momentum_ * velocity_.elements()[i] - scale * gradient.elements()[i]);
  }
  // w = v x^T - x x^T v x^T / 2, less its transpose; x x^T is 1, so that is (v x^T - x v^T) / 2.
  Matrix product(n, n);
  multiply_transposed(product, velocity_, point_, workers);
  Matrix skew(n, n);
  for (size_t i = 0; i < n; ++i) {
    for (size_t j = 0; j < n; ++j) skew(i, j) = (product(i, j) - product(j, i)) / 2;
  }
  multiply(velocity_, skew, point_, workers);
  const double mean_turn = frobenius(skew) / std::sqrt(static_cast<double>(n));
  if (mean_turn == 0) return;
  const double alpha = std::min(angle / mean_turn, 2 * kContraction / largest_row_sum(skew));
  // y = x + alpha / 2 w (x + y), by iteration.
  Matrix y = point_;
  for (size_t i = 0; i < n * n; ++i) {
    y.elements()[i] += static_cast<float>(alpha * velocity_.elements()[i]);
  }
  Matrix sum(n, n);
  for (int iteration = 0; iteration < kIterations; ++iteration) {
    for (size_t i = 0; i < n * n; ++i) {
      sum.elements()[i] = point_.elements()[i] + y.elements()[i];
    }
    multiply(product, skew, sum, workers);
    for (size_t i = 0; i < n * n; ++i) {
      y.elements()[i] =
          point_.elements()[i] + static_cast<float>(alpha / 2 * product.elements()[i]);
    }
  }
  point_ = made_orthogonal(y, workers);
}

}  // namespace flexllm::quantizer
