#include "tokenizer/byte_alphabet.h"

#include <array>
#include <cstdint>

#include "tokenizer/utf8.h"

namespace flexllm::tokenizer {
namespace {

constexpr bool stands_for_itself(int byte) {
  return (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte <= 0xAC) || byte >= 0xAE;
}

// Code points go up to U+0100 + 68 - 1; -1 for those outside the alphabet.
constexpr std::array<int16_t, 0x144> kByteOf = [] {
  std::array<int16_t, 0x144> table{};
  table.fill(-1);
  size_t moved = 0x100;
  for (int byte = 0; byte < 256; ++byte) {
    const size_t code_point = stands_for_itself(byte) ? static_cast<size_t>(byte) : moved++;
    table[code_point] = static_cast<int16_t>(byte);
  }
  return table;
}();

}  // namespace

std::optional<std::string> bytes_of_printable(std::string_view printable) {
  if (!is_valid_utf8(printable)) return std::nullopt;
  std::string bytes;
  for (size_t position = 0; position < printable.size();) {
    const char32_t code_point = read_code_point(printable, position);
    if (code_point >= kByteOf.size() || kByteOf[code_point] < 0) return std::nullopt;
    bytes.push_back(static_cast<char>(kByteOf[code_point]));
  }
  return bytes;
}

}  // namespace flexllm::tokenizer
