#include "quantizer/rotation/rotation.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <stdexcept>
#include <string>
#include <utility>

#include "quantizer/algebra/hadamard.h"
#include "quantizer/algebra/products.h"
#include "quantizer/rotation/cayley.h"

namespace flexllm::quantizer {
namespace {

constexpr double kOrthogonal = 1e-4;

// SplitMix64 (Steele, Lea and Flood, OOPSLA 2014): the same numbers with every standard library.
class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed) {}

  uint64_t next() {
    state_ += 0x9e3779b97f4a7c15u;
    uint64_t z = state_;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
  }
  // Near enough to a Gaussian of unit variance, without a function that libraries round as they
  // like: twelve uniform numbers less six.
  double normal() {
    double sum = -6;
    for (int i = 0; i < 12; ++i) sum += std::ldexp(static_cast<double>(next() >> 11), -53);
    return sum;
  }

 private:
  uint64_t state_;
};

// Factor `m` of size = m * 2^k that the fast transform multiplies by in full.
std::optional<size_t> core_order(size_t size) {
  if (size == 0) return std::nullopt;
  if (std::has_single_bit(size)) return 1;
  const size_t odd = size >> std::countr_zero(size);
  for (size_t m = 4 * odd; size % m == 0; m *= 2) {
    if (hadamard_matrix(m)) return m;
  }
  return std::nullopt;
}

// out = x m for rows of x [n][size], in binary32, each output summed in ascending order of the
// inputs. Lanes are outputs, so vectors of any width give the same bits.
[[gnu::always_inline]] inline void multiply_rows(View out, View x, const Matrix& m) {
  constexpr size_t kLanes = 256;
  const size_t size = m.rows();
  for (size_t first = 0; first < size; first += kLanes) {
    const size_t lanes = std::min(kLanes, size - first);
    for (size_t r = 0; r < x.rows; ++r) {
      float sums[kLanes] = {};
      for (size_t i = 0; i < size; ++i) {
        const float value = x(r, i);
        const float* row = m.row(i).data() + first;
        for (size_t j = 0; j < lanes; ++j) sums[j] += value * row[j];
      }
      std::copy_n(sums, lanes, out.row(r).data() + first);
    }
  }
}

#if defined(__x86_64__)
[[gnu::target("avx2")]] void multiply_rows_avx2(View out, View x, const Matrix& m) {
  multiply_rows(out, x, m);
}
#endif

}  // namespace

Rotation Rotation::random(size_t size, uint64_t seed, Workers& workers) {
  Random random(seed);
  if (core_order(size)) {
    std::vector<float> signs(size);
    for (float& sign : signs) sign = (random.next() >> 63) != 0 ? 1.0f : -1.0f;
    return hadamard(std::move(signs));
  }
  DoubleMatrix gaussian(size, size);
  for (double& value : gaussian.elements()) value = random.normal();
  make_orthogonal(gaussian, workers);
  Matrix matrix(size, size);
  std::transform(gaussian.elements().begin(), gaussian.elements().end(), matrix.elements().begin(),
                 [](double value) { return static_cast<float>(value); });
  return dense(std::move(matrix), workers);
}

Rotation Rotation::hadamard(std::vector<float> signs) {
  const auto order = core_order(signs.size());
  if (!order) {
    throw std::invalid_argument("no Hadamard matrix of order " + std::to_string(signs.size()) +
                                " is known here");
  }
  if (!std::all_of(signs.begin(), signs.end(), [](float s) { return s == 1 || s == -1; })) {
    throw std::invalid_argument("signs of a rotation must be +1 or -1");
  }
  Rotation rotation;
  rotation.size_ = signs.size();
  rotation.core_ = *hadamard_matrix(*order);
  rotation.signs_ = std::move(signs);
  return rotation;
}

Rotation Rotation::dense(Matrix matrix, Workers& workers) {
  const size_t size = matrix.rows();
  if (size == 0 || matrix.cols() != size) {
    throw std::invalid_argument("a rotation must be a square matrix");
  }
  Matrix product(size, size);
  multiply_transposed(product, matrix, matrix, workers);
  for (size_t i = 0; i < size; ++i) {
    for (size_t j = 0; j < size; ++j) {
      if (!(std::fabs(double{product(i, j)} - (i == j ? 1 : 0)) < kOrthogonal)) {
        throw std::invalid_argument("a rotation's matrix is not orthogonal");
      }
    }
  }
  Rotation rotation;
  rotation.size_ = size;
  rotation.dense_ = std::move(matrix);
  return rotation;
}

Matrix Rotation::matrix() const {
  if (signs_.empty()) return dense_;
  Matrix matrix = *hadamard_matrix(size_);
  const double scale = 1 / std::sqrt(static_cast<double>(size_));
  for (size_t i = 0; i < size_; ++i) {
    for (float& value : matrix.row(i)) value = static_cast<float>(value * signs_[i] * scale);
  }
  return matrix;
}

void Rotation::apply(View rows, Workers& workers) const {
  if (empty()) return;
  if (rows.cols % size_ != 0) throw std::invalid_argument("Rotation: rows of another size");
  constexpr size_t kRows = 16;
  workers.run((rows.rows + kRows - 1) / kRows, [&](size_t block) {
    const View part = rows.row_range(block * kRows, std::min(kRows, rows.rows - block * kRows));
    for (size_t first = 0; first < rows.cols; first += size_) {
      const View pieces = part.part(0, part.rows, first, size_);
      if (signs_.empty()) {
        apply_dense(pieces);
      } else {
        for (size_t r = 0; r < pieces.rows; ++r) apply_hadamard(pieces.row(r));
      }
    }
  });
}

// The core and the Walsh-Hadamard matrix one after the other, in binary64.
void Rotation::apply_hadamard(std::span<float> piece) const {
  const size_t m = core_.rows();
  const size_t power = size_ / m;
  std::vector<double> x(size_);
  for (size_t i = 0; i < size_; ++i) x[i] = double{piece[i]} * signs_[i];
  walsh_hadamard(std::span(x), power, 1.0);
  const double scale = 1 / std::sqrt(static_cast<double>(size_));
  std::vector<double> sums(power);
  for (size_t j = 0; j < m; ++j) {
    std::fill(sums.begin(), sums.end(), 0.0);
    for (size_t i = 0; i < m; ++i) {
      const double sign = core_(i, j);
      for (size_t t = 0; t < power; ++t) sums[t] += sign * x[i * power + t];
    }
    for (size_t t = 0; t < power; ++t) piece[j * power + t] = static_cast<float>(sums[t] * scale);
  }
}

void Rotation::apply_dense(View pieces) const {
  Matrix out(pieces.rows, pieces.cols);
#if defined(__x86_64__)
  static const bool avx2 = __builtin_cpu_supports("avx2") != 0;
  if (avx2) {
    multiply_rows_avx2(out, pieces, dense_);
  } else {
    multiply_rows(out, pieces, dense_);
  }
#else
  multiply_rows(out, pieces, dense_);
#endif
  for (size_t r = 0; r < pieces.rows; ++r) {
    std::copy(out.row(r).begin(), out.row(r).end(), pieces.row(r).begin());
  }
}

}  // namespace flexllm::quantizer
