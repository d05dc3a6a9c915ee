// UTF-8, read strictly. Ill-formed input is cut into maximal subparts (Unicode 15, section 3.9):
// each becomes one U+FFFD, as in Python's and Rust's lossy decoding. Free functions, any thread.
#pragma once

#include <array>
#include <cstddef>
#include <string>
#include <string_view>

namespace flexllm::tokenizer {

inline constexpr std::string_view kReplacementCharacter = "\xEF\xBF\xBD";

struct Utf8Unit {
  enum class State { character, ill_formed, cut };  // cut: the text ends inside the character
  State state;
  size_t length;  // bytes
};

// The unit at the front of `text`, which must not be empty.
Utf8Unit next_unit(std::string_view text);

bool is_valid_utf8(std::string_view text);

// `text` with every ill-formed part replaced by U+FFFD.
std::string to_valid_utf8(std::string_view text);

// The code point at `position` of a VALID text; moves `position` past it.
char32_t read_code_point(std::string_view text, size_t& position);

void append_code_point(std::string& text, char32_t code_point);

// Lets whole characters through and keeps the bytes of an unfinished one until the next call.
class Utf8Assembler {
 public:
  void push(std::string_view bytes, std::string& out);
  void finish(std::string& out);  // an unfinished character becomes U+FFFD

 private:
  std::array<char, 4> pending_{};
  size_t pending_size_ = 0;
};

}  // namespace flexllm::tokenizer
