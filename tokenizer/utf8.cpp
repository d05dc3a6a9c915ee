#include "tokenizer/utf8.h"

#include <algorithm>
#include <cstdint>

namespace flexllm::tokenizer {
namespace {

// What may follow a lead byte (Unicode 15, table 3-7): the length of the character and the range of
// its second byte, which excludes overlong forms, surrogates and values above U+10FFFF.
struct Lead {
  size_t length;
  uint8_t second_min;
  uint8_t second_max;
};

constexpr Lead lead_of(uint8_t byte) {
  if (byte < 0x80) return {1, 0, 0};
  if (byte < 0xC2) return {0, 0, 0};
  if (byte < 0xE0) return {2, 0x80, 0xBF};
  if (byte == 0xE0) return {3, 0xA0, 0xBF};
  if (byte == 0xED) return {3, 0x80, 0x9F};
  if (byte < 0xF0) return {3, 0x80, 0xBF};
  if (byte == 0xF0) return {4, 0x90, 0xBF};
  if (byte < 0xF4) return {4, 0x80, 0xBF};
  if (byte == 0xF4) return {4, 0x80, 0x8F};
  return {0, 0, 0};
}

}  // namespace

Utf8Unit next_unit(std::string_view text) {
  const Lead lead = lead_of(static_cast<uint8_t>(text[0]));
  if (lead.length == 0) return {Utf8Unit::State::ill_formed, 1};
  for (size_t i = 1; i < lead.length; ++i) {
    if (i == text.size()) return {Utf8Unit::State::cut, i};
    const auto byte = static_cast<uint8_t>(text[i]);
    const uint8_t low = i == 1 ? lead.second_min : uint8_t{0x80};
    const uint8_t high = i == 1 ? lead.second_max : uint8_t{0xBF};
    if (byte < low || byte > high) return {Utf8Unit::State::ill_formed, i};
  }
  return {Utf8Unit::State::character, lead.length};
}

bool is_valid_utf8(std::string_view text) {
  while (!text.empty()) {
    const Utf8Unit unit = next_unit(text);
    if (unit.state != Utf8Unit::State::character) return false;
    text.remove_prefix(unit.length);
  }
  return true;
}

std::string to_valid_utf8(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  Utf8Assembler assembler;
  assembler.push(text, out);
  assembler.finish(out);
  return out;
}

char32_t read_code_point(std::string_view text, size_t& position) {
  const auto first = static_cast<uint8_t>(text[position]);
  const size_t length = lead_of(first).length;
  constexpr uint8_t kLeadMask[] = {0, 0x7F, 0x1F, 0x0F, 0x07};
  char32_t code_point = first & kLeadMask[length];
  for (size_t i = 1; i < length; ++i) {
    code_point = (code_point << 6) | (static_cast<uint8_t>(text[position + i]) & 0x3Fu);
  }
  position += length;
  return code_point;
}

void append_code_point(std::string& text, char32_t code_point) {
  const auto put = [&](char32_t bits) { text.push_back(static_cast<char>(bits)); };
  const auto tail = [&](int shift) { put(0x80 | ((code_point >> shift) & 0x3F)); };
  if (code_point < 0x80) {
    put(code_point);
  } else if (code_point < 0x800) {
    put(0xC0 | (code_point >> 6));
    tail(0);
  } else if (code_point < 0x10000) {
    put(0xE0 | (code_point >> 12));
    tail(6);
    tail(0);
  } else {
    put(0xF0 | (code_point >> 18));
    tail(12);
    tail(6);
    tail(0);
  }
}

void Utf8Assembler::push(std::string_view bytes, std::string& out) {
  // At most three bytes are pending; complete them one byte at a time.
  while (pending_size_ > 0 && !bytes.empty()) {
    pending_[pending_size_] = bytes[0];
    const Utf8Unit unit = next_unit({pending_.data(), pending_size_ + 1});
    if (unit.state == Utf8Unit::State::ill_formed) {  // the new byte does not belong to it
      out += kReplacementCharacter;
      pending_size_ = 0;
      break;
    }
    bytes.remove_prefix(1);
    ++pending_size_;
    if (unit.state == Utf8Unit::State::character) {
      out.append(pending_.data(), pending_size_);
      pending_size_ = 0;
    }
  }
  while (!bytes.empty()) {
    const Utf8Unit unit = next_unit(bytes);
    switch (unit.state) {
      case Utf8Unit::State::character:
        out.append(bytes.substr(0, unit.length));
        break;
      case Utf8Unit::State::ill_formed:
        out += kReplacementCharacter;
        break;
      case Utf8Unit::State::cut:
        std::copy_n(bytes.data(), unit.length, pending_.data());
        pending_size_ = unit.length;
        break;
    }
    bytes.remove_prefix(unit.length);
  }
}

void Utf8Assembler::finish(std::string& out) {
  if (pending_size_ > 0) out += kReplacementCharacter;
  pending_size_ = 0;
}

}  // namespace flexllm::tokenizer
