// One orthogonal matrix that turns rows: x becomes x R. A value; threads may read one together.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "quantizer/algebra/matrix.h"
#include "quantizer/algebra/workers.h"

namespace flexllm::quantizer {

// A Hadamard matrix, +1 and -1, of an order that is a power of two times a matrix of Paley's (R. E.
// A. C. Paley, J. Math. Phys. 12, 1933): order q + 1 for a prime q = 3 mod 4, or 2 (q + 1) for a
// prime q = 1 mod 4. nullopt for other orders. Among them are all 4, 8, 12, 20, 24, 28, 36, 44, ...
// that hidden sizes are made of: 576 = 16 x 36, 1536 = 128 x 12, 960 = 16 x 60.
std::optional<Matrix> hadamard_matrix(size_t order);

class Rotation {
 public:
  // Turns nothing: size() is 0.
  Rotation() = default;

  // A random Hadamard matrix, diag(signs) H / sqrt(size), where hadamard_matrix() has H; else a
  // random orthogonal matrix (of a Gaussian one, its rows made orthonormal). The same for the same
  // size and seed.
  static Rotation random(size_t size, uint64_t seed, Workers& workers);
  // The random Hadamard matrix of these signs, each +1 or -1. Throws std::invalid_argument.
  static Rotation hadamard(std::vector<float> signs);
  // Any matrix; throws std::invalid_argument unless it is square, finite and orthogonal to 1e-4
  // (the largest element of R R^T - 1).
  static Rotation dense(Matrix matrix, Workers& workers);

  size_t size() const { return size_; }
  bool empty() const { return size_ == 0; }
  // Empty unless it is a random Hadamard matrix.
  std::span<const float> signs() const { return signs_; }
  // [size][size], rounded to binary32.
  Matrix matrix() const;

  // Replaces each row, cut into pieces of size(), by its pieces times R. Bits depend on the row
  // alone. Throws std::invalid_argument if pieces do not fill a row.
  void apply(View rows, Workers& workers) const;

 private:
  void apply_hadamard(std::span<float> piece) const;
  void apply_dense(View pieces) const;

  size_t size_ = 0;
  std::vector<float> signs_;  // random Hadamard: signs and the factor that is not a power of two
  Matrix core_;               // [m][m], m divides size_ and size_ / m is a power of two
  Matrix dense_;
};

}  // namespace flexllm::quantizer
