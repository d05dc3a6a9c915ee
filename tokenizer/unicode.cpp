#include "tokenizer/unicode.h"

#include <utf8proc.h>

#include <cstdlib>
#include <memory>
#include <new>

#include "tokenizer/utf8.h"

namespace flexllm::tokenizer {
namespace {

utf8proc_category_t category(char32_t code_point) {
  return utf8proc_category(static_cast<utf8proc_int32_t>(code_point));
}

template <typename Mapping>
std::string mapped(char32_t code_point, Mapping mapping) {
  std::string out;
  append_code_point(out, static_cast<char32_t>(mapping(static_cast<utf8proc_int32_t>(code_point))));
  return out;
}

constexpr char32_t kSharpS = 0xDF;
constexpr char32_t kDottedI = 0x130;

}  // namespace

std::string to_nfc(std::string_view text) {
  utf8proc_uint8_t* composed = nullptr;
  const auto size =
      utf8proc_map(reinterpret_cast<const utf8proc_uint8_t*>(text.data()),
                   static_cast<utf8proc_ssize_t>(text.size()), &composed,
                   static_cast<utf8proc_option_t>(UTF8PROC_STABLE | UTF8PROC_COMPOSE));
  if (size < 0) throw std::bad_alloc();  // valid UTF-8 of this size has no other reason to fail
  const std::unique_ptr<utf8proc_uint8_t, decltype(&std::free)> owner(composed, &std::free);
  return {reinterpret_cast<const char*>(composed), static_cast<size_t>(size)};
}

bool is_space(char32_t c) {
  return (c >= 0x09 && c <= 0x0D) || (c >= 0x1C && c <= 0x20) || c == 0x85 || c == 0xA0 ||
         c == 0x1680 || (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F ||
         c == 0x205F || c == 0x3000;
}

bool is_word(char32_t code_point) {
  switch (category(code_point)) {
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LL:
    case UTF8PROC_CATEGORY_LT:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO:
    case UTF8PROC_CATEGORY_MN:
    case UTF8PROC_CATEGORY_MC:
    case UTF8PROC_CATEGORY_ME:
    case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_PC:
      return true;
    default:
      return false;
  }
}

bool is_alphabetic(char32_t code_point) {
  switch (category(code_point)) {
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LL:
    case UTF8PROC_CATEGORY_LT:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO:
      return true;
    default:
      return false;
  }
}

bool is_decimal_digit(char32_t code_point) { return category(code_point) == UTF8PROC_CATEGORY_ND; }

bool is_printable(char32_t code_point) {
  switch (category(code_point)) {
    case UTF8PROC_CATEGORY_CN:
    case UTF8PROC_CATEGORY_CC:
    case UTF8PROC_CATEGORY_CF:
    case UTF8PROC_CATEGORY_CS:
    case UTF8PROC_CATEGORY_CO:
    case UTF8PROC_CATEGORY_ZL:
    case UTF8PROC_CATEGORY_ZP:
      return false;
    case UTF8PROC_CATEGORY_ZS:
      return code_point == ' ';
    default:
      return true;
  }
}

bool is_upper(char32_t code_point) {
  return utf8proc_isupper(static_cast<utf8proc_int32_t>(code_point)) != 0;
}

bool is_lower(char32_t code_point) {
  return utf8proc_islower(static_cast<utf8proc_int32_t>(code_point)) != 0;
}

std::string to_upper(char32_t code_point) {
  return code_point == kSharpS ? "SS" : mapped(code_point, utf8proc_toupper);
}

std::string to_lower(char32_t code_point) {
  return code_point == kDottedI ? "i\u0307" : mapped(code_point, utf8proc_tolower);
}

std::string to_title(char32_t code_point) {
  return code_point == kSharpS ? "Ss" : mapped(code_point, utf8proc_totitle);
}

}  // namespace flexllm::tokenizer
