#include "quantizer/algebra/products.h"

#include <algorithm>
#include <stdexcept>

#include "quantizer/algebra/blas.h"

namespace flexllm::quantizer {
namespace {

// Large enough that the library's packing of a tile's operands is a small part of its work, small
// enough that a layer of a small model gives every thread some tiles.
constexpr size_t kTile = 256;

size_t tiles_of(size_t size) { return (size + kTile - 1) / kTile; }

// The rows of `a` and the columns of `b` that make part of a product.
template <typename T>
BasicView<const T> left_of(blas::Shape shape, BasicView<const T> a, size_t row, size_t rows) {
  return shape == blas::Shape::at_b ? a.part(0, a.rows, row, rows) : a.row_range(row, rows);
}

template <typename T>
BasicView<const T> right_of(blas::Shape shape, BasicView<const T> b, size_t col, size_t cols) {
  return shape == blas::Shape::a_bt ? b.row_range(col, cols) : b.part(0, b.rows, col, cols);
}

enum class Tiles { all, lower };

template <typename T>
void product(blas::Shape shape, BasicView<T> c, BasicView<const T> a, BasicView<const T> b,
             Workers& workers, Blend blend, Tiles tiles = Tiles::all) {
  const bool a_turned = shape == blas::Shape::at_b;
  const bool b_turned = shape == blas::Shape::a_bt;
  if (c.rows != (a_turned ? a.cols : a.rows) || c.cols != (b_turned ? b.rows : b.cols) ||
      (a_turned ? a.rows : a.cols) != (b_turned ? b.cols : b.rows)) {
    throw std::invalid_argument("a product of matrices whose shapes do not fit");
  }
  const size_t across = tiles_of(c.cols);
  workers.run(tiles_of(c.rows) * across, [&](size_t index) {
    const size_t row = index / across * kTile;
    const size_t col = index % across * kTile;
    if (tiles == Tiles::lower && col > row) return;
    const size_t rows = std::min(kTile, c.rows - row);
    const size_t cols = std::min(kTile, c.cols - col);
    blas::gemm(shape, c.part(row, rows, col, cols), left_of(shape, a, row, rows),
               right_of(shape, b, col, cols), blend);
  });
}

template <typename T>
void square(BasicView<T> c, BasicView<const T> x, Workers& workers, Blend blend) {
  product(blas::Shape::at_b, c, x, x, workers, blend, Tiles::lower);
  workers.run(tiles_of(c.rows), [&](size_t tile) {
    for (size_t r = tile * kTile; r < std::min((tile + 1) * kTile, c.rows); ++r) {
      for (size_t i = r + 1; i < c.cols; ++i) c(r, i) = c(i, r);
    }
  });
}

}  // namespace

void multiply_transposed(View c, ConstView a, ConstView b, Workers& workers, Blend blend) {
  product(blas::Shape::a_bt, c, a, b, workers, blend);
}
void multiply_transposed(DoubleView c, ConstDoubleView a, ConstDoubleView b, Workers& workers,
                         Blend blend) {
  product(blas::Shape::a_bt, c, a, b, workers, blend);
}

void multiply(View c, ConstView a, ConstView b, Workers& workers, Blend blend) {
  product(blas::Shape::a_b, c, a, b, workers, blend);
}
void multiply(DoubleView c, ConstDoubleView a, ConstDoubleView b, Workers& workers, Blend blend) {
  product(blas::Shape::a_b, c, a, b, workers, blend);
}

void transposed_multiply(View c, ConstView a, ConstView b, Workers& workers, Blend blend) {
  product(blas::Shape::at_b, c, a, b, workers, blend);
}
void transposed_multiply(DoubleView c, ConstDoubleView a, ConstDoubleView b, Workers& workers,
                         Blend blend) {
  product(blas::Shape::at_b, c, a, b, workers, blend);
}

void symmetric_product(View c, ConstView x, Workers& workers, Blend blend) {
  square(c, x, workers, blend);
}
void symmetric_product(DoubleView c, ConstDoubleView x, Workers& workers, Blend blend) {
  square(c, x, workers, blend);
}

}  // namespace flexllm::quantizer
