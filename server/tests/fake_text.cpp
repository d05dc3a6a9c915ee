#include "server/tests/fake_text.h"

#include "tokenizer/utf8.h"

namespace flexllm::server::testing {
namespace {

constexpr std::array<std::string_view, 10> kWords = {
    " the", " card", "ing", "ab", "abc", "\xC3\xA9t\xC3", "\xA9", "\xF0\x9F", "\x98\x80", "\n\n"};

const std::string& all_bytes() {
  static const std::string bytes = [] {
    std::string all;
    for (int b = 0; b < 256; ++b) all += static_cast<char>(b);
    return all;
  }();
  return bytes;
}

}  // namespace

std::string_view FakeText::token_bytes(uint32_t token) const {
  if (token < kFirstWord) return std::string_view(all_bytes()).substr(token, 1);
  const size_t word = token - kFirstWord;
  return word < kWords.size() ? kWords[word] : std::string_view();
}

std::string FakeText::decode(std::span<const uint32_t> tokens) const {
  std::string bytes;
  for (const uint32_t token : tokens) bytes += token_bytes(token);
  return tokenizer::to_valid_utf8(bytes);
}

tl::expected<ChatPrompt, std::string> FakeText::chat_prompt(const Chat& chat,
                                                            bool add_generation_prompt) const {
  ChatPrompt prompt;
  if (!chat.tools.is_null()) prompt.text += "<tools>" + chat.tools.dump().substr(0, 200) + "\n";
  for (const auto& message : chat.messages) {
    if (message.content == "refuse") return tl::unexpected(std::string("the template refuses"));
    prompt.text += "<" + message.role + ">" + message.content;
    for (const auto& call : message.tool_calls) prompt.text += call.name.substr(0, 9);
    prompt.text += "\n";
  }
  if (add_generation_prompt) prompt.text += "<assistant>";
  prompt.tokens = encode(prompt.text, false);
  return prompt;
}

}  // namespace flexllm::server::testing
