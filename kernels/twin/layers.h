// The layers of a launch, row by row in the words of docs/numerics.md, section 6.
#pragma once

#include <vector>

#include "kernels/twin/isa/ops.h"
#include "kernels/twin/launch_view.h"

namespace flexllm::kernels::twin {

// Rows of floats with a stride that suits vectors; what lies behind `columns` is not used.
class Rows {
 public:
  Rows(size_t rows, size_t columns) : stride_((columns + 31) / 32 * 32), data_(rows * stride_) {}
  float* operator[](size_t row) { return data_.data() + row * stride_; }
  const float* operator[](size_t row) const { return data_.data() + row * stride_; }
  float* data() { return data_.data(); }
  size_t stride() const { return stride_; }

 private:
  size_t stride_;
  std::vector<float> data_;
};

// Quantised rows, as linear layers take them.
class QuantizedRows {
 public:
  QuantizedRows(uint32_t rows, uint32_t inputs)
      : inputs_(inputs),
        groups_(divide_up(inputs, kGroupInputs)),
        q_(size_t{rows} * inputs),
        sums_(size_t{rows} * groups_),
        scales_(rows) {}

  void set(const Ops& ops, uint32_t row, const float* x, const ActivationGrid& grid) {
    scales_[row] = ops.quantize(x, inputs_, grid, q_.data() + size_t{row} * inputs_,
                                sums_.data() + size_t{row} * groups_);
  }
  Activations view() const {
    return {static_cast<uint32_t>(scales_.size()),
            inputs_,
            groups_,
            q_.data(),
            sums_.data(),
            scales_.data()};
  }

 private:
  uint32_t inputs_;
  uint32_t groups_;
  std::vector<uint8_t> q_;
  std::vector<int32_t> sums_;
  std::vector<AsymmetricScale> scales_;
};

// Resolves the parts of tile `index` of a matrix.
Tile resolve_tile(const LaunchView& launch, const Matrix& matrix, uint32_t index);

// Runs the launch's layers over `x`, one row of `hidden` floats for each launch row.
void run_layers(const LaunchView& launch, const Ops& ops, Rows& x);

}  // namespace flexllm::kernels::twin
