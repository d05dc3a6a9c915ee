// Weight arenas in memory: quantised rows put in their place (docs/weight-layout.md). Rows of
// different tiles may be placed from different threads.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "kernels/contract/layout.h"
#include "quantizer/rounding/weights.h"

namespace flexllm::quantizer {

class Arenas {
 public:
  explicit Arenas(uint32_t streams);

  // Reserves room for a matrix of `tiles` row tiles and fills it with padding rows. Returns its
  // offset in words, the same in every stream.
  uint32_t reserve(uint32_t tiles, const kernels::TileLayout& layout);

  // Puts a row into tile `tile`, line `line` (0..31) of the matrix at `offset`. `bias` counts only
  // if the layout has one.
  void place(uint32_t offset, const kernels::TileLayout& layout, uint32_t tile, uint32_t line,
             const QuantizedRow& row, float bias);

  uint32_t streams() const { return static_cast<uint32_t>(arenas_.size()); }
  std::span<const std::byte> arena(uint32_t stream) const { return arenas_[stream]; }

 private:
  std::byte* tile_at(uint32_t offset, const kernels::TileLayout& layout, uint32_t tile);

  std::vector<std::vector<std::byte>> arenas_;  // of one size
};

}  // namespace flexllm::quantizer
