// The text side of a model: tokens to bytes and back, and its chat template. Immutable once made;
// any thread may call any member.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <span>
#include <string>
#include <string_view>
#include <tl/expected.hpp>
#include <utility>
#include <vector>

namespace flexllm::server {

// A function that the model wants called.
struct ToolCall {
  std::string id;
  std::string name;
  std::string arguments;  // the text of a JSON object
};

struct ChatMessage {
  std::string role;
  std::string content;
  std::vector<ToolCall> tool_calls;  // of an assistant
  std::string tool_call_id;          // of a tool: the call that this answers
  std::string name;                  // of a tool; empty: not given
};

inline ChatMessage said_by(std::string role, std::string content) {
  return {std::move(role), std::move(content), {}, {}, {}};
}

struct Chat {
  std::vector<ChatMessage> messages;
  nlohmann::ordered_json tools;  // OpenAI's list of them, or null
};

// How a model writes its calls, which it has from its template:
//   hermes   <tool_call>{"name", "arguments"}</tool_call>, once or several times, after any text
//   llama    {"name", "parameters"}, alone
//   mistral  [TOOL_CALLS] [{"name", "arguments"}, ...]
enum class ToolFormat { none, hermes, llama, mistral };

// A conversation as the model sees it.
struct ChatPrompt {
  std::string text;
  std::vector<uint32_t> tokens;
};

class TextModel {
 public:
  virtual ~TextModel() = default;

  virtual uint32_t vocab_size() const = 0;
  // With the tokens that the model wants around a text if `add_special` (beginning of text).
  // Control tokens written out in `text` become those tokens.
  virtual std::vector<uint32_t> encode(std::string_view text, bool add_special) const = 0;
  // Valid UTF-8; control tokens leave no text.
  virtual std::string decode(std::span<const uint32_t> tokens) const = 0;
  // The bytes that a token adds to a text that goes on; none for a control token.
  virtual std::string_view token_bytes(uint32_t token) const = 0;
  // As token_bytes(), but for a control token its name.
  virtual std::string_view token_name(uint32_t token) const = 0;
  // The tokens that end an answer, ascending.
  virtual const std::vector<uint32_t>& end_tokens() const = 0;

  // Why there are no chats, one sentence: the model has no template, or one that we cannot render.
  // Empty: there are.
  virtual const std::string& chat_problem() const = 0;
  // What the model's own template makes of the messages: a control token in a message is only
  // text. The error is what the template objects to ("roles must alternate"), or chat_problem().
  virtual tl::expected<ChatPrompt, std::string> chat_prompt(const Chat& chat,
                                                            bool add_generation_prompt) const = 0;
  // none: the template knows no tools, or we do not know how its model calls them.
  virtual ToolFormat tool_format() const = 0;
};

}  // namespace flexllm::server
