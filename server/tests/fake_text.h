// A tokenizer without a model: token b < 256 is the byte b, then a few tokens of several bytes (one
// of them ends inside a character), then the end of a turn. The chat template is
// the beginning of "<tools>LIST\n" if there are any, "<role>content\n" for each message, with its
// calls, and
// "<assistant>" at the end.
#pragma once

#include <array>
#include <string>
#include <vector>

#include "server/text/text_model.h"

namespace flexllm::server::testing {

class FakeText final : public TextModel {
 public:
  static constexpr uint32_t kFirstWord = 256;
  static constexpr uint32_t kEnd = 290;  // control token
  static constexpr uint32_t kVocab = 300;

  uint32_t vocab_size() const override { return kVocab; }
  std::vector<uint32_t> encode(std::string_view text, bool) const override {
    std::vector<uint32_t> tokens;
    for (const char c : text) tokens.push_back(static_cast<uint8_t>(c));
    return tokens;
  }
  std::string decode(std::span<const uint32_t> tokens) const override;
  std::string_view token_bytes(uint32_t token) const override;
  std::string_view token_name(uint32_t token) const override {
    return token >= kEnd ? std::string_view("<end>") : token_bytes(token);
  }
  const std::vector<uint32_t>& end_tokens() const override { return end_; }
  const std::string& chat_problem() const override { return problem; }
  tl::expected<ChatPrompt, std::string> chat_prompt(const Chat& chat,
                                                    bool add_generation_prompt) const override;
  ToolFormat tool_format() const override { return tools; }

  std::string problem;  // set before it is served
  ToolFormat tools = ToolFormat::hermes;

 private:
  std::vector<uint32_t> end_{kEnd};
};

}  // namespace flexllm::server::testing
