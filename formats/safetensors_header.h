// Private to this room: what the reader and the writer of safetensors agree on.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string_view>

#include "formats/dtype.h"

namespace flexllm::formats {

// Enough for 100,000 tensors; the format itself allows 100 MB.
inline constexpr uint64_t kMaxSafetensorsHeader = 16 << 20;
inline constexpr size_t kMaxSafetensorsDimensions = 8;

// Plain types only: block formats have no name in safetensors.
inline std::optional<DType> safetensors_type(std::string_view name) {
  for (const DType type :
       {DType::f32, DType::f16, DType::bf16, DType::f64, DType::u8, DType::i8, DType::u16,
        DType::i16, DType::u32, DType::i32, DType::u64, DType::i64}) {
    if (name_of(type) == name) return type;
  }
  return std::nullopt;
}

// Bytes of a tensor of a plain type, or nullopt when it has more than 2^48 elements.
inline std::optional<uint64_t> safetensors_size(DType type, std::span<const uint64_t> shape) {
  constexpr uint64_t kMaxElements = uint64_t{1} << 48;
  uint64_t elements = 1;
  for (const uint64_t dimension : shape) {
    if (dimension == 0) return 0;
    if (dimension > kMaxElements / elements) return std::nullopt;
    elements *= dimension;
  }
  return elements * block_size(type).bytes;
}

}  // namespace flexllm::formats
