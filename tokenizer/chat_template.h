// Renders a model's chat template: the subset of Jinja2 that such templates use, with the output of
// Python's jinja2 as the transformers package sets it up (trim_blocks, lstrip_blocks), to the byte.
// Templates come with checkpoints and are untrusted: they can reach nothing but their arguments,
// and rendering stops at the limits below.
//
// A ChatTemplate is compiled once and immutable: any thread may render at any time.
#pragma once

#include <cstddef>
#include <cstdint>
#include <ctime>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>

#include "tokenizer/prompt.h"

namespace flexllm::tokenizer {

class TemplateError : public std::runtime_error {
 public:
  enum class Kind {
    syntax,  // at compile time: not Jinja, or a construct outside the subset
    render,  // an operation that fails in Python too, such as a list added to a string
    raised,  // the template refused its input with raise_exception(); what() ends with its message
    limit,   // one of TemplateLimits
  };
  TemplateError(Kind kind, size_t line, const std::string& what)
      : std::runtime_error("chat template, line " + std::to_string(line) + ": " + what),
        kind_(kind),
        line_(line) {}
  Kind kind() const { return kind_; }
  size_t line() const { return line_; }  // 1-based

 private:
  Kind kind_;
  size_t line_;
};

struct TemplateLimits {
  size_t source_bytes = 1 << 20;   // of the template's text
  size_t output_bytes = 32 << 20;  // of one rendering
  // Work and memory of one rendering: an expression or statement evaluated, a list element made or
  // 16 bytes of text made count one step.
  uint64_t steps = 8'000'000;
  size_t depth = 200;  // nesting of expressions, statements, macro calls and values
};

// The arguments of one rendering. Objects keep the order of their keys (ordered_json), because
// `tojson` shows it to the model.
struct ChatInput {
  const nlohmann::ordered_json* messages = nullptr;   // list of {"role", "content", ...}
  const nlohmann::ordered_json* tools = nullptr;      // list, or nullptr: `none` in the template
  const nlohmann::ordered_json* documents = nullptr;  // likewise
  const nlohmann::ordered_json* extra = nullptr;      // object: further variables
  bool add_generation_prompt = true;
  std::string bos_token;  // texts of the special tokens
  std::string eos_token;
  std::optional<std::tm> now;  // for strftime_now(); absent: the local time
};

class ChatTemplate {
 public:
  // Throws TemplateError of kind `syntax` (or `limit`).
  static ChatTemplate compile(std::string_view source, const TemplateLimits& limits = {});

  ChatTemplate(ChatTemplate&&) noexcept;
  ChatTemplate& operator=(ChatTemplate&&) noexcept;
  ~ChatTemplate();

  // Whether the template mentions a variable (or attribute) of this name.
  bool mentions(std::string_view name) const;

  // Throws TemplateError. Text of messages, tools, documents and extra is marked as untrusted in
  // the result, however the template cuts and joins it.
  Prompt render(const ChatInput& input) const;

 private:
  struct Program;
  explicit ChatTemplate(std::unique_ptr<const Program> program);
  std::unique_ptr<const Program> program_;
};

}  // namespace flexllm::tokenizer
