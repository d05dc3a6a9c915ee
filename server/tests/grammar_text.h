// A vocabulary for tests of grammars: all bytes, pieces of JSON that cross its borders, words, cut
// characters, a control token and an end.
#pragma once

#include <string>
#include <vector>

#include "server/text/text_model.h"

namespace flexllm::server::testing {

class GrammarText final : public TextModel {
 public:
  // `lacking`: bytes that have no token of their own.
  explicit GrammarText(const std::string& lacking = {}, const std::vector<std::string>& more = {}) {
    for (int b = 0; b < 256; ++b) {
      const std::string byte(1, static_cast<char>(b));
      if (lacking.find(byte) == std::string::npos) tokens_.push_back(byte);
    }
    for (const char* piece :
         {"{\"",   "\":",  "\": ",     "\": \"", "\",",          "\", ",    "\", \"",
          "\",\"", "\"}",  "}}",       "\"}]",   "}]}",          "]}",      "],",
          "[{",    "[[",   "[\"",      "{}",     "[]",           "\\n",     "\\u00",
          "\\ud",  "\n  ", "\n    ",   "  ",     "true",         "false",   "null",
          "tru",   "12",   "00",       "2024",   "-0",           "0.",      "e+",
          "name",  "age",  "value",    " the",   "ab",           "abc",     "id",
          "item",  "\xC3", "\xC3\xA9", "\xA9\"", "\xF0\x9F\x98", "\x80\",", "\xE2\x82\xAC",
          "\\\"",  "\\\\", "a-b",      "xyz",    "://",          "@b.",     "-01-",
          "T1"}) {
      tokens_.emplace_back(piece);
    }
    tokens_.insert(tokens_.end(), more.begin(), more.end());
    control_ = static_cast<uint32_t>(tokens_.size());
    tokens_.emplace_back();
    end_ = {control_ + 1};
    tokens_.emplace_back("<end>");
  }

  uint32_t vocab_size() const override { return static_cast<uint32_t>(tokens_.size()); }
  std::vector<uint32_t> encode(std::string_view, bool) const override { return {}; }
  std::string decode(std::span<const uint32_t>) const override { return {}; }
  std::string_view token_bytes(uint32_t token) const override { return tokens_.at(token); }
  std::string_view token_name(uint32_t token) const override { return tokens_.at(token); }
  const std::vector<uint32_t>& end_tokens() const override { return end_; }
  const std::string& chat_problem() const override { return problem_; }
  ToolFormat tool_format() const override { return ToolFormat::none; }
  tl::expected<ChatPrompt, std::string> chat_prompt(const Chat&, bool) const override {
    return tl::unexpected(problem_);
  }
  uint32_t control() const { return control_; }

 private:
  std::vector<std::string> tokens_;
  uint32_t control_ = 0;
  std::vector<uint32_t> end_;
  std::string problem_ = "no chats";
};

}  // namespace flexllm::server::testing
