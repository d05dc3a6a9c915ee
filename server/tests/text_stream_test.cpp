// Text comes out whole, without stop strings, and the same however it was cut into tokens.
#include "server/text/text_stream.h"

#include <gtest/gtest.h>

#include <random>

#include "tokenizer/utf8.h"

namespace flexllm::server {
namespace {

struct Result {
  std::string text;
  bool stopped = false;
};

Result stream(const std::vector<std::string>& tokens, const std::vector<std::string>& stop) {
  TextStream out(stop);
  Result result;
  for (const auto& token : tokens) {
    const std::string piece = out.append(token);
    EXPECT_TRUE(tokenizer::is_valid_utf8(piece)) << "half a character";
    result.text += piece;
    EXPECT_EQ(out.shown_characters(), characters(result.text));
  }
  result.text += out.finish();
  result.stopped = out.stopped();
  return result;
}

std::vector<std::string> split(const std::string& text, std::mt19937& random) {
  std::vector<std::string> tokens;
  for (size_t at = 0; at < text.size();) {
    const size_t length = std::uniform_int_distribution<size_t>(1, 7)(random);
    tokens.push_back(text.substr(at, length));
    at += tokens.back().size();
  }
  return tokens;
}

// The definition, told plainly: the stop string that is complete first, the longest of those.
Result expected(const std::string& bytes, const std::vector<std::string>& stop) {
  const std::string text = tokenizer::to_valid_utf8(bytes);
  for (size_t end = 1; end <= text.size(); ++end) {
    size_t longest = 0;
    for (const auto& s : stop) {
      if (end >= s.size() && text.compare(end - s.size(), s.size(), s) == 0) {
        longest = std::max(longest, s.size());
      }
    }
    if (longest > 0) return {text.substr(0, end - longest), true};
  }
  return {text, false};
}

TEST(TextStream, AnySplitGivesTheSameText) {
  std::mt19937 random(1);
  const std::vector<std::string> alphabet = {
      "a", "b", "c", "\n", "\xC3\xA9", "\xE2\x82\xAC", "\xF0\x9F\x98\x80", "\xC3", "\xFF"};
  const std::vector<std::vector<std::string>> stops = {{},
                                                       {"ab"},
                                                       {"abc", "b"},
                                                       {"aaab", "aab", "cc"},
                                                       {"\xC3\xA9"
                                                        "a"},
                                                       {"\n\n"},
                                                       {"abcabc", "ca"},
                                                       {"\xF0\x9F\x98\x80\xE2\x82\xAC",
                                                        "\xE2\x82\xAC"
                                                        "b"},
                                                       {"a"},
                                                       {"bab", "abab", "babb"}};
  auto pick = [&](size_t n) { return std::uniform_int_distribution<size_t>(0, n - 1)(random); };
  for (int round = 0; round < 4000; ++round) {
    std::string text;
    // Few symbols in most rounds, so that stop strings nearly match and match.
    const size_t symbols = round % 3 == 0 ? alphabet.size() : 3;
    for (size_t i = pick(40); i > 0; --i) text += alphabet[pick(symbols)];
    const auto& stop = stops[pick(stops.size())];
    const Result want = expected(text, stop);
    const Result got = stream(split(text, random), stop);
    ASSERT_EQ(got.text, want.text) << "round " << round;
    ASSERT_EQ(got.stopped, want.stopped) << "round " << round;
  }
}

TEST(TextStream, ShowsTextAsSoonAsItCannotBeAStop) {
  TextStream out({"STOP"});
  EXPECT_EQ(out.append("go S"), "go ");
  EXPECT_EQ(out.append("TO"), "");
  EXPECT_EQ(out.append("!"), "STO!");
  EXPECT_EQ(out.append("xST"), "x");
  EXPECT_EQ(out.append("OP and more"), "");
  EXPECT_TRUE(out.stopped());
  EXPECT_EQ(out.append("ignored"), "");
  EXPECT_EQ(out.finish(), "");
}

TEST(TextStream, HeldTextComesAtTheEnd) {
  TextStream out({"STOP"});
  EXPECT_EQ(out.append("almost STO"), "almost ");
  EXPECT_EQ(out.finish(), "STO");
}

TEST(TextStream, IncompleteTailBecomesOneReplacement) {
  TextStream out;
  EXPECT_EQ(out.append("ok\xF0\x9F\x98"), "ok");
  EXPECT_EQ(out.finish(), "\xEF\xBF\xBD");
}

TEST(TextStream, NoMatchBeforeMinTokens) {
  TextStream out({"ab"});
  EXPECT_EQ(out.append("ab", false), "ab");
  EXPECT_EQ(out.append("ab"), "");
  EXPECT_TRUE(out.stopped());
}

}  // namespace
}  // namespace flexllm::server
