#include "tokenizer/utf8.h"

#include <gtest/gtest.h>

#include <string>
#include <utility>
#include <vector>

namespace flexllm::tokenizer {
namespace {

// U+FFFD, as often as given.
std::string replacements(size_t count) {
  std::string text;
  for (size_t i = 0; i < count; ++i) text += kReplacementCharacter;
  return text;
}

TEST(Utf8, ReplacesMaximalSubparts) {
  // The examples of Unicode 15, tables 3-8 to 3-11, and the limits of every range.
  const std::vector<std::pair<std::string, std::string>> cases = {
      {"", ""},
      {"abc", "abc"},
      {"\x7F\xC2\x80\xDF\xBF\xE0\xA0\x80\xEF\xBF\xBF\xF0\x90\x80\x80\xF4\x8F\xBF\xBF",
       "\x7F\xC2\x80\xDF\xBF\xE0\xA0\x80\xEF\xBF\xBF\xF0\x90\x80\x80\xF4\x8F\xBF\xBF"},
      {"\xC0\xAF\xE0\x80\xBF\xF0\x81\x82\x41", replacements(8) + "A"},
      {"\xED\xA0\x80\xED\xBF\xBF\xED\xAF\x41", replacements(8) + "A"},
      {"\xF4\x91\x92\x93\xFF\x41\x80\xBF\x42", replacements(5) + "A" + replacements(2) + "B"},
      {"\xE1\x80\xE2\xF0\x91\x92\xF1\xBF\x41", replacements(4) + "A"},
      {"\xC1\xBF", replacements(2)},
      {"\xF5\x80\x80\x80", replacements(4)},
      {"\xE2\x82", replacements(1)},
      {"\xF0\x9F\x91", replacements(1)},
      {"\xF0\x9F\x91x", replacements(1) + "x"},
  };
  for (const auto& [input, expected] : cases) {
    EXPECT_EQ(to_valid_utf8(input), expected);
    EXPECT_EQ(is_valid_utf8(input), input == expected);
    EXPECT_TRUE(is_valid_utf8(to_valid_utf8(input)));
  }
}

TEST(Utf8, AssemblerGivesTheSameForAnyCut) {
  const std::string text =
      "a\xC3\xA9\xE2\x82\xAC\xF0\x9F\x91\x8D\xF0\x9F\xE2\x82\xED\xA0\x80\xFFz\xF4\x90\xC3";
  const std::string whole = to_valid_utf8(text);
  for (size_t first = 0; first <= text.size(); ++first) {
    for (size_t second = first; second <= text.size(); ++second) {
      Utf8Assembler assembler;
      std::string out;
      assembler.push(text.substr(0, first), out);
      EXPECT_TRUE(is_valid_utf8(out));
      assembler.push(text.substr(first, second - first), out);
      EXPECT_TRUE(is_valid_utf8(out));
      assembler.push(text.substr(second), out);
      assembler.finish(out);
      EXPECT_EQ(out, whole) << first << ", " << second;
    }
  }
}

TEST(Utf8, CodePointsGoBothWays) {
  for (const char32_t code_point :
       {0x0u, 0x7Fu, 0x80u, 0x7FFu, 0x800u, 0xFFFFu, 0x10000u, 0x10FFFFu}) {
    std::string text;
    append_code_point(text, code_point);
    EXPECT_TRUE(is_valid_utf8(text));
    size_t position = 0;
    EXPECT_EQ(read_code_point(text, position), code_point);
    EXPECT_EQ(position, text.size());
  }
}

}  // namespace
}  // namespace flexllm::tokenizer
