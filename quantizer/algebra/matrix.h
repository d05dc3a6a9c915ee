// Dense row-major matrices, and views of parts of them. A matrix owns its elements; a view does
// not, and is as cheap to copy as a pointer. Plain values: threads may read one together, and write
// disjoint parts of it.
#pragma once

#include <cstddef>
#include <span>
#include <stdexcept>
#include <type_traits>
#include <utility>
#include <vector>

namespace flexllm::quantizer {

// `rows` x `cols` elements; row r starts at data + r * stride, with stride >= cols.
template <typename T>
struct BasicView {
  T* data = nullptr;
  size_t rows = 0;
  size_t cols = 0;
  size_t stride = 0;

  T& operator()(size_t r, size_t c) const { return data[r * stride + c]; }
  std::span<T> row(size_t r) const { return {data + r * stride, cols}; }
  // Throws std::out_of_range unless the part lies inside.
  BasicView part(size_t first_row, size_t n_rows, size_t first_col, size_t n_cols) const {
    if (first_row > rows || n_rows > rows - first_row || first_col > cols ||
        n_cols > cols - first_col) {
      throw std::out_of_range("BasicView::part");
    }
    return {data + first_row * stride + first_col, n_rows, n_cols, stride};
  }
  BasicView row_range(size_t first, size_t n) const { return part(first, n, 0, cols); }
  operator BasicView<const T>() const  // NOLINT(google-explicit-constructor)
      requires(!std::is_const_v<T>) {
    return {data, rows, cols, stride};
  }
};

template <typename T>
class BasicMatrix {
 public:
  BasicMatrix() = default;
  // All zeros.
  BasicMatrix(size_t rows, size_t cols) : rows_(rows), cols_(cols), elements_(rows * cols) {}
  // Throws std::invalid_argument unless there are rows * cols elements.
  BasicMatrix(size_t rows, size_t cols, std::vector<T> elements)
      : rows_(rows), cols_(cols), elements_(std::move(elements)) {
    if (elements_.size() != rows * cols) throw std::invalid_argument("BasicMatrix: size");
  }

  size_t rows() const { return rows_; }
  size_t cols() const { return cols_; }
  T& operator()(size_t r, size_t c) { return elements_[r * cols_ + c]; }
  const T& operator()(size_t r, size_t c) const { return elements_[r * cols_ + c]; }
  std::span<T> row(size_t r) { return {elements_.data() + r * cols_, cols_}; }
  std::span<const T> row(size_t r) const { return {elements_.data() + r * cols_, cols_}; }
  // Row by row.
  std::span<T> elements() { return elements_; }
  std::span<const T> elements() const { return elements_; }

  BasicView<T> view() { return {elements_.data(), rows_, cols_, cols_}; }
  BasicView<const T> view() const { return {elements_.data(), rows_, cols_, cols_}; }
  operator BasicView<T>() { return view(); }              // NOLINT(google-explicit-constructor)
  operator BasicView<const T>() { return view(); }        // NOLINT(google-explicit-constructor)
  operator BasicView<const T>() const { return view(); }  // NOLINT(google-explicit-constructor)

 private:
  size_t rows_ = 0;
  size_t cols_ = 0;
  std::vector<T> elements_;
};

using Matrix = BasicMatrix<float>;
using View = BasicView<float>;
using ConstView = BasicView<const float>;
using DoubleMatrix = BasicMatrix<double>;
using DoubleView = BasicView<double>;
using ConstDoubleView = BasicView<const double>;

}  // namespace flexllm::quantizer
