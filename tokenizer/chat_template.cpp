#include "tokenizer/chat_template.h"

#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <utility>

#include "tokenizer/jinja/evaluator.h"
#include "tokenizer/jinja/globals.h"
#include "tokenizer/jinja/lexer.h"
#include "tokenizer/jinja/parser.h"

namespace flexllm::tokenizer {
namespace {

std::tm local_time() {
  const std::time_t now = std::time(nullptr);
  std::tm result{};
  localtime_r(&now, &result);
  return result;
}

// Where the bytes of the caller stand.
std::vector<TextRange> untrusted_ranges(const jinja::Text& text) {
  std::vector<TextRange> ranges;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text.origin_at(i) != jinja::Origin::from_caller) continue;
    if (!ranges.empty() && ranges.back().end == i) {
      ++ranges.back().end;
    } else {
      ranges.push_back({i, i + 1});
    }
  }
  return ranges;
}

}  // namespace

struct ChatTemplate::Program {
  TemplateLimits limits;
  jinja::Body body;
  std::set<std::string, std::less<>> names;
};

ChatTemplate::ChatTemplate(std::unique_ptr<const Program> program) : program_(std::move(program)) {}
ChatTemplate::ChatTemplate(ChatTemplate&&) noexcept = default;
ChatTemplate& ChatTemplate::operator=(ChatTemplate&&) noexcept = default;
ChatTemplate::~ChatTemplate() = default;

ChatTemplate ChatTemplate::compile(std::string_view source, const TemplateLimits& limits) {
  Program program{limits, jinja::parse(source, limits), {}};
  for (auto& lexeme : jinja::lex(source)) {
    if (lexeme.kind == jinja::Lexeme::Kind::name) program.names.insert(std::move(lexeme.text));
  }
  return ChatTemplate(std::make_unique<Program>(std::move(program)));
}

bool ChatTemplate::mentions(std::string_view name) const { return program_->names.contains(name); }

Prompt ChatTemplate::render(const ChatInput& input) const {
  using jinja::Origin;
  jinja::Run run(program_->limits);
  jinja::Evaluator evaluator(run);
  jinja::set_globals(evaluator, input.now ? *input.now : local_time());
  const auto set_json = [&](const char* name, const nlohmann::ordered_json* json) {
    evaluator.set_variable(name, json ? run.from_json(*json) : jinja::Value());
  };
  set_json("messages", input.messages);
  set_json("tools", input.tools);
  set_json("documents", input.documents);
  evaluator.set_variable("add_generation_prompt", input.add_generation_prompt);
  evaluator.set_variable("bos_token", run.text(input.bos_token, Origin::from_template));
  evaluator.set_variable("eos_token", run.text(input.eos_token, Origin::from_template));
  if (input.extra != nullptr) {
    for (const auto& [name, value] : input.extra->items()) {
      evaluator.set_variable(name, run.from_json(value));
    }
  }
  const jinja::Text text = evaluator.render(program_->body);
  return {text.bytes(), untrusted_ranges(text)};
}

}  // namespace flexllm::tokenizer
