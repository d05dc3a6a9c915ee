#include "server/text/model_text.h"

#include <algorithm>
#include <nlohmann/json.hpp>

namespace flexllm::server {
namespace {

constexpr std::string_view kMistralCalls = "[TOOL_CALLS]";

ToolFormat format_of(const tokenizer::ChatTemplate& compiled, std::string_view source) {
  const auto writes = [&](std::string_view text) {
    return source.find(text) != std::string_view::npos;
  };
  if (!compiled.mentions("tools")) return ToolFormat::none;
  if (writes(kMistralCalls)) return ToolFormat::mistral;
  if (writes("<tool_call>")) return ToolFormat::hermes;
  if (writes("ipython") && writes("\"parameters\"")) return ToolFormat::llama;
  return ToolFormat::none;
}

nlohmann::ordered_json as_json(const ChatMessage& message) {
  nlohmann::ordered_json out = {{"role", message.role}, {"content", message.content}};
  if (!message.tool_call_id.empty()) out["tool_call_id"] = message.tool_call_id;
  if (!message.name.empty()) out["name"] = message.name;
  for (const auto& call : message.tool_calls) {
    // Templates write arguments as JSON, so they want the object and not its text.
    out["tool_calls"].push_back(
        {{"id", call.id},
         {"type", "function"},
         {"function",
          {{"name", call.name}, {"arguments", nlohmann::ordered_json::parse(call.arguments)}}}});
  }
  return out;
}

}  // namespace

ModelText::ModelText(const formats::TokenizerSource& source,
                     const formats::GenerationDefaults& defaults)
    : tokenizer_(tokenizer::Tokenizer::from_source(source)) {
  if (source.chat_templates.empty()) {
    chat_problem_ = "The model has no chat template.";
  } else {
    try {
      const std::string& text = source.chat_templates.front().text;
      template_ = tokenizer::ChatTemplate::compile(text);
      tool_format_ = format_of(*template_, text);
      if (tool_format_ == ToolFormat::mistral) call_token_ = tokenizer_.id_of(kMistralCalls);
    } catch (const tokenizer::TemplateError& error) {
      chat_problem_ = std::string("The model's chat template is not supported: ") + error.what();
    }
  }
  const auto stop = tokenizer_.stop_ids();
  end_tokens_.assign(stop.begin(), stop.end());
  end_tokens_.insert(end_tokens_.end(), defaults.eos_token_ids.begin(),
                     defaults.eos_token_ids.end());
  std::sort(end_tokens_.begin(), end_tokens_.end());
  end_tokens_.erase(std::unique(end_tokens_.begin(), end_tokens_.end()), end_tokens_.end());
}

uint32_t ModelText::vocab_size() const { return static_cast<uint32_t>(tokenizer_.vocab_size()); }

std::vector<uint32_t> ModelText::encode(std::string_view text, bool add_special) const {
  return tokenizer_.encode(
      text, {.special_tokens = tokenizer::SpecialTokens::recognised, .add_bos_eos = add_special});
}

std::string ModelText::decode(std::span<const uint32_t> tokens) const {
  return tokenizer_.decode(tokens);
}

std::string_view ModelText::token_bytes(uint32_t token) const {
  return tokenizer_.is_special(token) && token != call_token_ ? std::string_view()
                                                              : tokenizer_.token_bytes(token);
}

std::string_view ModelText::token_name(uint32_t token) const {
  return tokenizer_.token_bytes(token);
}

std::string ModelText::name_of(std::optional<uint32_t> token) const {
  return token ? std::string(tokenizer_.token_bytes(*token)) : std::string();
}

tl::expected<ChatPrompt, std::string> ModelText::chat_prompt(const Chat& chat,
                                                             bool add_generation_prompt) const {
  if (!template_) return tl::unexpected(chat_problem_);
  auto list = nlohmann::ordered_json::array();
  for (const auto& message : chat.messages) list.push_back(as_json(message));
  tokenizer::ChatInput input;
  input.messages = &list;
  if (!chat.tools.is_null()) input.tools = &chat.tools;
  input.add_generation_prompt = add_generation_prompt;
  input.bos_token = name_of(tokenizer_.bos_id());
  input.eos_token = name_of(tokenizer_.eos_id());
  try {
    auto prompt = template_->render(input);
    auto tokens = tokenizer_.encode(prompt);
    return ChatPrompt{std::move(prompt.text), std::move(tokens)};
  } catch (const tokenizer::TemplateError& error) {
    return tl::unexpected(std::string(error.what()));
  }
}

}  // namespace flexllm::server
