#include "quantizer/algebra/cholesky.h"

#include <algorithm>
#include <cmath>
#include <string>

#include "quantizer/algebra/blas.h"
#include "quantizer/algebra/products.h"

namespace flexllm::quantizer {
namespace {

constexpr size_t kBlock = 128;  // rank of an update
constexpr size_t kTile = 256;   // side of what one thread updates at a time

size_t divide_up(size_t a, size_t b) { return (a + b - 1) / b; }

void require_square(DoubleView a) {
  if (a.rows != a.cols) throw std::invalid_argument("a factor of a matrix that is not square");
}

// `first`: the row of the whole matrix, for the message.
void factor_block(DoubleView a, size_t first) {
  for (size_t j = 0; j < a.rows; ++j) {
    double pivot = a(j, j);
    for (size_t k = 0; k < j; ++k) pivot -= a(j, k) * a(j, k);
    if (!(pivot > 0) || !std::isfinite(pivot)) throw NotPositiveDefinite(first + j);
    a(j, j) = std::sqrt(pivot);
    for (size_t i = j + 1; i < a.rows; ++i) {
      double sum = a(i, j);
      for (size_t k = 0; k < j; ++k) sum -= a(i, k) * a(j, k);
      a(i, j) = sum / a(j, j);
    }
  }
}

void invert_block(DoubleView l) {
  for (size_t j = 0; j < l.rows; ++j) {
    l(j, j) = 1 / l(j, j);
    for (size_t i = j + 1; i < l.rows; ++i) {
      double sum = 0;
      for (size_t k = j; k < i; ++k) sum += l(i, k) * l(k, j);
      l(i, j) = -sum / l(i, i);
    }
  }
}

void zero_upper(DoubleView a) {
  for (size_t r = 0; r < a.rows; ++r) std::ranges::fill(a.row(r).subspan(r + 1), 0.0);
}

// Reverses the order of rows and of columns.
void reverse_order(DoubleView a) {
  for (size_t r = 0; r < a.rows - r; ++r) {
    const size_t other = a.rows - 1 - r;
    std::ranges::reverse(a.row(r));
    if (other == r) break;
    std::ranges::reverse(a.row(other));
    std::ranges::swap_ranges(a.row(r), a.row(other));
  }
}

}  // namespace

NotPositiveDefinite::NotPositiveDefinite(size_t pivot_row)
    : std::runtime_error("the matrix is not positive definite (row " + std::to_string(pivot_row) +
                         ")"),
      pivot_(pivot_row) {}

void factor_cholesky(DoubleView a, Workers& workers) {
  require_square(a);
  const size_t n = a.rows;
  for (size_t k = 0; k < n; k += kBlock) {
    const size_t width = std::min(kBlock, n - k);
    const DoubleView diagonal = a.part(k, width, k, width);
    factor_block(diagonal, k);
    const size_t rest = k + width;
    const size_t tiles = divide_up(n - rest, kTile);
    const auto rows_of = [&](size_t tile) {
      const size_t first = rest + tile * kTile;
      return a.part(first, std::min(kTile, n - first), k, width);
    };
    workers.run(tiles, [&](size_t tile) { blas::solve_right_transposed(rows_of(tile), diagonal); });
    workers.run(tiles * tiles, [&](size_t index) {
      const size_t row = index / tiles;
      const size_t col = index % tiles;
      if (col > row) return;
      const DoubleView left = rows_of(row);
      const DoubleView right = rows_of(col);
      const DoubleView target =
          a.part(rest + row * kTile, left.rows, rest + col * kTile, right.rows);
      blas::gemm(blas::Shape::a_bt, target, left, right, {-1, 1});
    });
  }
  zero_upper(a);
}

void invert_lower(DoubleView l, Workers& workers) {
  require_square(l);
  const size_t n = l.rows;
  DoubleMatrix row(kBlock, n);
  for (size_t k = 0; k < n; k += kBlock) {
    const size_t height = std::min(kBlock, n - k);
    const DoubleView diagonal = l.part(k, height, k, height);
    invert_block(diagonal);
    // Left of it: -diagonal^-1 times (this row of blocks times the inverse so far, which is lower
    // triangular: nothing above the first row of a tile of columns counts).
    const size_t tiles = divide_up(k, kTile);
    workers.run(tiles, [&](size_t tile) {
      const size_t first = tile * kTile;
      const size_t cols = std::min(kTile, k - first);
      blas::gemm(blas::Shape::a_b, row.view().part(0, height, first, cols),
                 l.part(k, height, first, k - first), l.part(first, k - first, first, cols), {});
    });
    workers.run(tiles, [&](size_t tile) {
      const size_t first = tile * kTile;
      const size_t cols = std::min(kTile, k - first);
      blas::gemm(blas::Shape::a_b, l.part(k, height, first, cols), diagonal,
                 row.view().part(0, height, first, cols), {-1, 0});
    });
  }
}

void factor_inverse(DoubleView a, Workers& workers) {
  require_square(a);
  // The lower triangle of the reversed matrix is the upper one of a.
  for (size_t r = 0; r < a.rows; ++r) {
    for (size_t c = r + 1; c < a.cols; ++c) a(r, c) = a(c, r);
  }
  reverse_order(a);
  factor_cholesky(a, workers);
  invert_lower(a, workers);
  reverse_order(a);
}

void invert_positive(DoubleView a, Workers& workers) {
  factor_cholesky(a, workers);
  invert_lower(a, workers);
  DoubleMatrix inverse(a.rows, a.cols);
  symmetric_product(inverse, a, workers, {1, 0});
  for (size_t r = 0; r < a.rows; ++r) std::ranges::copy(inverse.row(r), a.row(r).begin());
}

}  // namespace flexllm::quantizer
