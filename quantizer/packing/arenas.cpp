#include "quantizer/packing/arenas.h"

#include <algorithm>
#include <cstring>
#include <stdexcept>

namespace flexllm::quantizer {
namespace {

using kernels::kInputsPerWord;
using kernels::kTileRows;
using kernels::kWordBytes;

// Weights of padding rows: w = 0, that is the offset, in both nibbles of every plane byte.
constexpr uint8_t padding_byte(const kernels::Precision& precision, uint32_t plane) {
  const auto offset = static_cast<uint32_t>(precision.weight_offset());
  const uint32_t nibble = (offset >> (4 * plane)) & 15u;
  return static_cast<uint8_t>(nibble | (nibble << 4));
}

}  // namespace

Arenas::Arenas(uint32_t streams) : arenas_(streams) {
  if (streams == 0) throw std::invalid_argument("Arenas: no streams");
}

uint32_t Arenas::reserve(uint32_t tiles, const kernels::TileLayout& layout) {
  const size_t offset = arenas_.front().size() / kWordBytes;
  const size_t words = size_t{kernels::divide_up(tiles, streams())} * layout.words();
  if (offset + words > UINT32_MAX) throw std::length_error("Arenas: beyond 256 GiB");
  for (auto& arena : arenas_) arena.resize((offset + words) * kWordBytes);
  const uint32_t groups = layout.groups();
  for (uint32_t tile = 0; tile < tiles; ++tile) {
    std::byte* base = tile_at(static_cast<uint32_t>(offset), layout, tile);
    if (layout.precision.grouped) {
      std::memset(base + size_t{layout.multipliers()} * kWordBytes, 1, size_t{groups} * kTileRows);
    }
    for (uint32_t plane = 0; plane < layout.precision.weight_planes; ++plane) {
      const size_t at = layout.planes() + size_t{plane} * layout.plane_words();
      std::memset(base + at * kWordBytes, padding_byte(layout.precision, plane),
                  size_t{layout.plane_words()} * kWordBytes);
    }
  }
  return static_cast<uint32_t>(offset);
}

std::byte* Arenas::tile_at(uint32_t offset, const kernels::TileLayout& layout, uint32_t tile) {
  const size_t word = offset + size_t{tile / streams()} * layout.words();
  return arenas_[tile % streams()].data() + word * kWordBytes;
}

void Arenas::place(uint32_t offset, const kernels::TileLayout& layout, uint32_t tile, uint32_t line,
                   const QuantizedRow& row, float bias) {
  std::byte* base = tile_at(offset, layout, tile);
  const auto put_float = [&](uint32_t word, float value) {
    std::memcpy(base + size_t{word} * kWordBytes + size_t{line} * sizeof value, &value,
                sizeof value);
  };
  put_float(layout.scales(), row.scale);
  put_float(layout.weight_sums(), row.weight_sum);
  if (layout.precision.bias) put_float(layout.bias(), bias);
  if (layout.precision.grouped) {
    std::byte* multipliers = base + size_t{layout.multipliers()} * kWordBytes;
    for (size_t g = 0; g < row.multipliers.size(); ++g) {
      multipliers[g * kTileRows + line] = static_cast<std::byte>(row.multipliers[g]);
    }
  }
  const bool high_nibble = line >= kTileRows / 2;
  const uint32_t lane = line % (kTileRows / 2);
  for (uint32_t plane = 0; plane < layout.precision.weight_planes; ++plane) {
    std::byte* words = base + (layout.planes() + size_t{plane} * layout.plane_words()) * kWordBytes;
    for (uint32_t i = 0; i < layout.inputs; ++i) {
      const auto unsigned_weight =
          static_cast<uint32_t>(row.q[i] + layout.precision.weight_offset());
      const auto nibble = static_cast<uint8_t>((unsigned_weight >> (4 * plane)) & 15u);
      std::byte& byte = words[size_t{i / kInputsPerWord} * kWordBytes + lane * kInputsPerWord +
                              i % kInputsPerWord];
      byte = high_nibble ? (byte & std::byte{0x0f}) | static_cast<std::byte>(nibble << 4)
                         : (byte & std::byte{0xf0}) | static_cast<std::byte>(nibble);
    }
  }
}

}  // namespace flexllm::quantizer
