#include "cli/conversation.h"

#include <utility>

namespace flexllm::cli {

using nlohmann::json;

Conversation::Conversation(HttpClient& client, AnswerOptions options, std::string system)
    : client_(client), options_(std::move(options)) {
  set_system(std::move(system));
}

void Conversation::set_system(std::string system) {
  system_ = std::move(system);
  clear();
}

void Conversation::clear() {
  messages_ = json::array();
  if (!system_.empty()) messages_.push_back({{"role", "system"}, {"content", system_}});
}

tl::expected<AnswerEnd, ClientError> Conversation::ask(
    const std::string& text, const std::function<void(std::string_view)>& show) {
  messages_.push_back({{"role", "user"}, {"content", text}});
  json body = {
      {"messages", messages_}, {"stream", true}, {"stream_options", {{"include_usage", true}}}};
  if (!options_.model.empty()) body["model"] = options_.model;
  if (options_.temperature) body["temperature"] = *options_.temperature;
  if (options_.max_tokens) body["max_tokens"] = *options_.max_tokens;
  if (options_.seed) body["seed"] = *options_.seed;

  std::string answer;
  AnswerEnd end;
  const auto done = client_.stream("/v1/chat/completions", body, [&](const json& event) {
    if (event.contains("usage") && event["usage"].is_object()) end.usage = event["usage"];
    for (const json& choice : event.value("choices", json::array())) {
      const json delta = choice.value("delta", json::object());
      const std::string piece = delta.value("content", "");
      if (!piece.empty()) show(piece);
      answer += piece;
      const auto reason = choice.find("finish_reason");
      if (reason != choice.end() && reason->is_string()) end.finish_reason = *reason;
    }
  });
  if (!done && done.error().kind != ClientError::Kind::interrupted) {
    messages_.erase(messages_.size() - 1);
    return tl::unexpected(done.error());
  }
  messages_.push_back({{"role", "assistant"}, {"content", answer}});
  return end;
}

}  // namespace flexllm::cli
