// Element types of stored tensors: those of safetensors and the GGUF types that we read. Pure
// functions; any thread may call them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

namespace flexllm::formats {

// Plain types first, then GGUF's block formats.
enum class DType {
  f32,
  f16,
  bf16,
  f64,
  u8,
  i8,
  u16,
  i16,
  u32,
  i32,
  u64,
  i64,
  q4_0,
  q4_1,
  q8_0,
  q4_k,
  q6_k,
};

// "F32", "Q4_K", ...: as in safetensors headers and GGUF tools.
std::string_view name_of(DType type);

// Elements are stored in blocks: `elements` of them in `bytes` bytes. Plain types have one element.
struct BlockSize {
  uint32_t elements;
  uint32_t bytes;
};
BlockSize block_size(DType type);

// Whether `to_f32` takes this type: the float types and the block formats.
bool converts_to_f32(DType type);

// Converts (dequantises) out.size() elements, a whole number of blocks, from exactly the bytes that
// hold them; little-endian, no alignment needed. Each value is the one that the `gguf` Python
// package gives, bit for bit. Throws Error when the type does not convert or the sizes disagree.
void to_f32(DType type, std::span<const std::byte> bytes, std::span<float> out);

}  // namespace flexllm::formats
