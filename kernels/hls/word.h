// A 512-bit word of card memory and its fields: lanes of 32 bits, bytes. C++14.
//
// ap_uint<512> to an HLS compiler, an array of lanes in plain simulation; only the functions below
// look inside. Lane 0 and byte 0 are the least significant, at the lowest address.
#pragma once

#include <cstdint>

#include "kernels/contract/layout.h"
#include "kernels/contract/numerics.h"
#include "kernels/hls/pragmas.h"

#if FLEXLLM_HLS_TYPES
#include <ap_int.h>
#endif

namespace flexllm {
namespace kernels {

#if FLEXLLM_HLS_TYPES

typedef ap_uint<512> Word;
typedef ap_int<48> Accumulator;  // of a DSP; docs/numerics.md, section 1, has the widths needed

inline Word zero_word() { return Word(0); }

inline uint32_t get_lane(const Word& word, uint32_t lane) {
  return static_cast<uint32_t>(
      word.range(static_cast<int>(32 * lane + 31), static_cast<int>(32 * lane)));
}

inline void set_lane(Word& word, uint32_t lane, uint32_t value) {
  word.range(static_cast<int>(32 * lane + 31), static_cast<int>(32 * lane)) = value;
}

inline uint32_t get_byte(const Word& word, uint32_t byte) {
  return static_cast<uint32_t>(
      word.range(static_cast<int>(8 * byte + 7), static_cast<int>(8 * byte)));
}

inline void set_byte(Word& word, uint32_t byte, uint32_t value) {
  word.range(static_cast<int>(8 * byte + 7), static_cast<int>(8 * byte)) = value;
}

#else

struct alignas(kWordBytes) Word {
  uint32_t lane[kWordBytes / 4];
};
typedef int64_t Accumulator;

inline Word zero_word() { return Word{}; }

inline uint32_t get_lane(const Word& word, uint32_t lane) { return word.lane[lane]; }

inline void set_lane(Word& word, uint32_t lane, uint32_t value) { word.lane[lane] = value; }

inline uint32_t get_byte(const Word& word, uint32_t byte) {
  return (word.lane[byte / 4] >> (8 * (byte % 4))) & 255u;
}

inline void set_byte(Word& word, uint32_t byte, uint32_t value) {
  const uint32_t shift = 8 * (byte % 4);
  word.lane[byte / 4] = (word.lane[byte / 4] & ~(255u << shift)) | ((value & 255u) << shift);
}

#endif

inline float get_float(const Word& word, uint32_t lane) { return float_of(get_lane(word, lane)); }

inline void set_float(Word& word, uint32_t lane, float value) {
  set_lane(word, lane, bits_of(value));
}

// Byte as a signed number.
inline int32_t get_signed_byte(const Word& word, uint32_t byte) {
  return static_cast<int32_t>(get_byte(word, byte) ^ 128u) - 128;
}

inline float to_float(const Accumulator& value) {
  return static_cast<float>(static_cast<int64_t>(value));
}

}  // namespace kernels
}  // namespace flexllm
