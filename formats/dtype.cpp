#include "formats/dtype.h"

#include <array>
#include <bit>
#include <cstring>
#include <string>

#include "formats/error.h"

namespace flexllm::formats {
namespace {

static_assert(std::endian::native == std::endian::little, "files are read in place");

// Every product and sum below is one rounded float operation, in the order of the `gguf` package:
// that, and -ffp-contract=off, makes the results equal bit for bit.

template <typename T>
T load(const std::byte* at) {
  T value;
  std::memcpy(&value, at, sizeof value);
  return value;
}

uint32_t u8(std::byte b) { return std::to_integer<uint32_t>(b); }
float low_nibble(std::byte b) { return static_cast<float>(u8(b) & 0xF); }
float high_nibble(std::byte b) { return static_cast<float>(u8(b) >> 4); }
int signed8(std::byte b) { return std::bit_cast<int8_t>(b); }

// Exact, and free of subnormal intermediates: right in threads that flush them to zero.
float half_to_float(uint16_t half) {
  const uint32_t sign = (half & 0x8000u) << 16;
  const uint32_t exponent = (half >> 10) & 0x1Fu;
  const uint32_t mantissa = half & 0x3FFu;
  const float subnormal = static_cast<float>(mantissa) * 0x1p-24f;
  const uint32_t biased = exponent == 31 ? 255 : exponent + 112;
  const uint32_t magnitude =
      exponent == 0 ? std::bit_cast<uint32_t>(subnormal) : biased << 23 | mantissa << 13;
  return std::bit_cast<float>(sign | magnitude);
}

float half_at(const std::byte* at) { return half_to_float(load<uint16_t>(at)); }

// Block layouts: those of GGML, field by field. Each function writes one block.

// f16 d; u8 q[16]: low nibbles are elements 0..15, high nibbles 16..31; d * (q - 8)
void q4_0_block(const std::byte* block, float* out) {
  const float d = half_at(block);
  const std::byte* q = block + 2;
  for (int i = 0; i < 16; ++i) {
    out[i] = d * (low_nibble(q[i]) - 8.0f);
    out[i + 16] = d * (high_nibble(q[i]) - 8.0f);
  }
}

// f16 d, m; u8 q[16] as above; d * q + m
void q4_1_block(const std::byte* block, float* out) {
  const float d = half_at(block);
  const float m = half_at(block + 2);
  const std::byte* q = block + 4;
  for (int i = 0; i < 16; ++i) {
    out[i] = d * low_nibble(q[i]) + m;
    out[i + 16] = d * high_nibble(q[i]) + m;
  }
}

// f16 d; i8 q[32]; d * q
void q8_0_block(const std::byte* block, float* out) {
  const float d = half_at(block);
  const std::byte* q = block + 2;
  for (int i = 0; i < 32; ++i) out[i] = static_cast<float>(signed8(q[i])) * d;
}

// f16 d, dmin; u8 scales[12]; u8 q[128]. Eight groups of 32, each with a 6-bit scale and minimum:
// groups 0..3 keep theirs in the low six bits of bytes 0..3 and 4..7, groups 4..7 in the nibbles of
// bytes 8..11 under the two top bits of the former. Groups 2n and 2n+1 are the low and high nibbles
// of q[32 n .. 32 n + 31].
void q4_k_block(const std::byte* block, float* out) {
  const float d = half_at(block);
  const float dmin = half_at(block + 2);
  const std::byte* scales = block + 4;
  const std::byte* q = block + 16;
  for (int group = 0; group < 8; ++group) {
    const int j = group & 3;
    uint32_t scale = u8(scales[j]) & 0x3F;
    uint32_t minimum = u8(scales[j + 4]) & 0x3F;
    if (group >= 4) {
      scale = (u8(scales[j + 8]) & 0xF) | (u8(scales[j]) >> 2 & 0x30);
      minimum = u8(scales[j + 8]) >> 4 | (u8(scales[j + 4]) >> 2 & 0x30);
    }
    const float step = d * static_cast<float>(scale);
    const float offset = dmin * static_cast<float>(minimum);
    const std::byte* packed = q + 32 * (group / 2);
    const int shift = 4 * (group & 1);
    for (int i = 0; i < 32; ++i) {
      const auto value = static_cast<float>(u8(packed[i]) >> shift & 0xF);
      out[32 * group + i] = step * value - offset;
    }
  }
}

// u8 ql[128]; u8 qh[64]; i8 scales[16]; f16 d. Two halves of 128 elements; within a half, four runs
// of 32 take the low nibbles of ql[0..31] and ql[32..63], then their high nibbles, and bits 0-1,
// 2-3, 4-5, 6-7 of qh[0..31]. One scale per 16 elements; d * scale * (q - 32).
void q6_k_block(const std::byte* block, float* out) {
  const std::byte* scales = block + 192;
  const float d = half_at(block + 208);
  for (int run = 0; run < 8; ++run) {
    const int half = run / 4;
    const int quarter = run % 4;
    const std::byte* low = block + 64 * half + 32 * (quarter & 1);
    const std::byte* high = block + 128 + 32 * half;
    const int low_shift = 4 * (quarter / 2);
    for (int i = 0; i < 32; ++i) {
      const float step = d * static_cast<float>(signed8(scales[2 * run + i / 16]));
      const uint32_t value = (u8(low[i]) >> low_shift & 0xF) | (u8(high[i]) >> (2 * quarter) & 3)
                                                                   << 4;
      out[32 * run + i] = step * static_cast<float>(static_cast<int>(value) - 32);
    }
  }
}

struct Traits {
  DType type;
  std::string_view name;
  BlockSize block;
  bool to_f32;
};

// In the order of the enumeration.
constexpr std::array<Traits, 17> kTraits = {{
    {DType::f32, "F32", {1, 4}, true},
    {DType::f16, "F16", {1, 2}, true},
    {DType::bf16, "BF16", {1, 2}, true},
    {DType::f64, "F64", {1, 8}, false},
    {DType::u8, "U8", {1, 1}, false},
    {DType::i8, "I8", {1, 1}, false},
    {DType::u16, "U16", {1, 2}, false},
    {DType::i16, "I16", {1, 2}, false},
    {DType::u32, "U32", {1, 4}, false},
    {DType::i32, "I32", {1, 4}, false},
    {DType::u64, "U64", {1, 8}, false},
    {DType::i64, "I64", {1, 8}, false},
    {DType::q4_0, "Q4_0", {32, 18}, true},
    {DType::q4_1, "Q4_1", {32, 20}, true},
    {DType::q8_0, "Q8_0", {32, 34}, true},
    {DType::q4_k, "Q4_K", {256, 144}, true},
    {DType::q6_k, "Q6_K", {256, 210}, true},
}};

constexpr bool in_order() {
  for (size_t i = 0; i < kTraits.size(); ++i) {
    if (static_cast<size_t>(kTraits[i].type) != i) return false;
  }
  return true;
}
static_assert(in_order());

const Traits& traits(DType type) { return kTraits.at(static_cast<size_t>(type)); }

template <void (*kBlock)(const std::byte*, float*)>
void convert_blocks(BlockSize size, std::span<const std::byte> bytes, std::span<float> out) {
  const size_t blocks = out.size() / size.elements;
  for (size_t b = 0; b < blocks; ++b) {
    kBlock(bytes.data() + b * size.bytes, out.data() + b * size.elements);
  }
}

}  // namespace

std::string_view name_of(DType type) { return traits(type).name; }
BlockSize block_size(DType type) { return traits(type).block; }
bool converts_to_f32(DType type) { return traits(type).to_f32; }

void to_f32(DType type, std::span<const std::byte> bytes, std::span<float> out) {
  const BlockSize size = block_size(type);
  if (!converts_to_f32(type)) {
    throw Error("type " + std::string(name_of(type)) + " does not convert to float");
  }
  if (out.size() % size.elements != 0 || bytes.size() % size.bytes != 0 ||
      out.size() / size.elements != bytes.size() / size.bytes) {
    throw Error(std::to_string(bytes.size()) + " bytes of type " + std::string(name_of(type)) +
                " are not " + std::to_string(out.size()) + " elements");
  }
  if (out.empty()) return;
  switch (type) {
    case DType::f32:
      std::memcpy(out.data(), bytes.data(), bytes.size());
      return;
    case DType::f16:
      for (size_t i = 0; i < out.size(); ++i) out[i] = half_at(bytes.data() + 2 * i);
      return;
    case DType::bf16:
      for (size_t i = 0; i < out.size(); ++i) {
        const uint32_t bits = load<uint16_t>(bytes.data() + 2 * i);
        out[i] = std::bit_cast<float>(bits << 16);
      }
      return;
    case DType::q4_0:
      return convert_blocks<q4_0_block>(size, bytes, out);
    case DType::q4_1:
      return convert_blocks<q4_1_block>(size, bytes, out);
    case DType::q8_0:
      return convert_blocks<q8_0_block>(size, bytes, out);
    case DType::q4_k:
      return convert_blocks<q4_k_block>(size, bytes, out);
    case DType::q6_k:
      return convert_blocks<q6_k_block>(size, bytes, out);
    default:
      return;  // excluded by converts_to_f32
  }
}

}  // namespace flexllm::formats
