// Properties and mappings of Unicode (utf8proc's tables, Unicode 15). Pure functions, any thread.
// Texts are valid UTF-8.
#pragma once

#include <string>
#include <string_view>

namespace flexllm::tokenizer {

// Canonical composition, NFC.
std::string to_nfc(std::string_view text);

// str.isspace() of Python: White_Space and the separators U+001C to U+001F.
bool is_space(char32_t code_point);

// Letters, marks, decimal digits and connector punctuation: \w of regular expressions.
bool is_word(char32_t code_point);

bool is_alphabetic(char32_t code_point);     // L*, str.isalpha() of Python
bool is_decimal_digit(char32_t code_point);  // Nd
bool is_printable(char32_t code_point);      // str.isprintable() of Python
bool is_upper(char32_t code_point);
bool is_lower(char32_t code_point);

// Simple case mappings, and of the full ones those of single letters in common use: U+00DF is "SS"
// in upper case, U+0130 is "i" with a dot above in lower case.
std::string to_upper(char32_t code_point);
std::string to_lower(char32_t code_point);
std::string to_title(char32_t code_point);

}  // namespace flexllm::tokenizer
