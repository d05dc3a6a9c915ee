#include "quantizer/algebra/products.h"

#include <algorithm>

#include "quantizer/algebra/blas.h"

namespace flexllm::quantizer {
namespace {

// Large enough that the library's packing of a tile's operands is a small part of its work, small
// enough that a layer of a small model gives every thread some tiles.
constexpr size_t kTile = 256;

size_t tiles_of(size_t size) { return (size + kTile - 1) / kTile; }

void require(bool ok) {
  if (!ok) throw std::invalid_argument("product of matrices whose shapes do not fit");
}

template <typename T, typename Body>
void for_tiles(BasicView<T> c, Workers& workers, const Body& body) {
  const size_t across = tiles_of(c.cols);
  workers.run(tiles_of(c.rows) * across, [&](size_t index) {
    const size_t row = index / across * kTile;
    const size_t col = index % across * kTile;
    body(row, std::min(kTile, c.rows - row), col, std::min(kTile, c.cols - col));
  });
}

}  // namespace

template <typename T>
void multiply_transposed(BasicView<T> c, std::type_identity_t<BasicView<const T>> a,
                         std::type_identity_t<BasicView<const T>> b, Workers& workers,
                         Blend blend) {
  require(c.rows == a.rows && c.cols == b.rows && a.cols == b.cols);
  for_tiles(c, workers, [&](size_t row, size_t rows, size_t col, size_t cols) {
    blas::gemm(blas::Shape::a_bt, c.part(row, rows, col, cols), a.row_range(row, rows),
               b.row_range(col, cols), blend);
  });
}

template <typename T>
void multiply(BasicView<T> c, std::type_identity_t<BasicView<const T>> a,
              std::type_identity_t<BasicView<const T>> b, Workers& workers, Blend blend) {
  require(c.rows == a.rows && c.cols == b.cols && a.cols == b.rows);
  for_tiles(c, workers, [&](size_t row, size_t rows, size_t col, size_t cols) {
    blas::gemm(blas::Shape::a_b, c.part(row, rows, col, cols), a.row_range(row, rows),
               b.part(0, b.rows, col, cols), blend);
  });
}

template <typename T>
void transposed_multiply(BasicView<T> c, std::type_identity_t<BasicView<const T>> a,
                         std::type_identity_t<BasicView<const T>> b, Workers& workers,
                         Blend blend) {
  require(c.rows == a.cols && c.cols == b.cols && a.rows == b.rows);
  for_tiles(c, workers, [&](size_t row, size_t rows, size_t col, size_t cols) {
    blas::gemm(blas::Shape::at_b, c.part(row, rows, col, cols), a.part(0, a.rows, row, rows),
               b.part(0, b.rows, col, cols), blend);
  });
}

template <typename T>
void symmetric_product(BasicView<T> c, std::type_identity_t<BasicView<const T>> x, Workers& workers,
                       Blend blend) {
  require(c.rows == c.cols && c.cols == x.cols);
  for_tiles(c, workers, [&](size_t row, size_t rows, size_t col, size_t cols) {
    if (col > row) return;
    const BasicView<T> tile = c.part(row, rows, col, cols);
    blas::gemm(blas::Shape::at_b, tile, x.part(0, x.rows, row, rows), x.part(0, x.rows, col, cols),
               blend);
    for (size_t r = 0; r < rows; ++r) {
      const size_t end = row == col ? r : cols;  // the diagonal tile mirrors its own lower part
      for (size_t i = 0; i < end; ++i) c(col + i, row + r) = tile(r, i);
    }
  });
}

#define FLEXLLM_PRODUCTS(T)                                                                      \
  template void multiply_transposed(BasicView<T>, BasicView<const T>, BasicView<const T>,        \
                                    Workers&, Blend);                                            \
  template void multiply(BasicView<T>, BasicView<const T>, BasicView<const T>, Workers&, Blend); \
  template void transposed_multiply(BasicView<T>, BasicView<const T>, BasicView<const T>,        \
                                    Workers&, Blend);                                            \
  template void symmetric_product(BasicView<T>, BasicView<const T>, Workers&, Blend);
FLEXLLM_PRODUCTS(float)
FLEXLLM_PRODUCTS(double)
#undef FLEXLLM_PRODUCTS

}  // namespace flexllm::quantizer
