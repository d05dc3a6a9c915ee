#include "server/api/openai_response.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "server/api/json.h"

namespace flexllm::server {
namespace {

std::string event(const std::string& data) { return "data: " + data + "\n\n"; }

// JSON has no infinity: a token that cannot come is given as the clients expect it.
float finite(float logprob) { return std::max(logprob, -9999.0f); }

}  // namespace

ResponseWriter::ResponseWriter(ResponseHead head, uint32_t choices,
                               std::shared_ptr<const TextModel> text)
    : head_(std::move(head)), text_(std::move(text)), choices_(choices) {
  if (!head_.tools) return;
  for (auto& choice : choices_) choice.parser.emplace(*head_.tools);
}

ResponseWriter::Json ResponseWriter::envelope(const char* object) const {
  return {{"id", head_.id}, {"object", object}, {"created", head_.created}, {"model", head_.model}};
}

// One chunk of one choice. `content` is the delta of a chat, or the text of a completion.
ResponseWriter::Json ResponseWriter::chunk(uint32_t index, Json content, Json logprobs,
                                           const char* finish) const {
  Json chunk = envelope(head_.chat ? "chat.completion.chunk" : "text_completion");
  Json choice = {{"index", index}};
  choice[head_.chat ? "delta" : "text"] = std::move(content);
  choice["logprobs"] = std::move(logprobs);
  choice["finish_reason"] = finish == nullptr ? Json() : Json(finish);
  chunk["choices"] = Json::array({std::move(choice)});
  if (head_.include_usage) chunk["usage"] = nullptr;
  if (finish != nullptr && timings_) chunk["timings"] = timings_json(*timings_);
  return chunk;
}

// The commonest chunk, one of text alone: what chunk() makes, without the objects between.
std::string ResponseWriter::text_event(uint32_t index, const std::string& text) {
  if (chunk_begin_.empty()) {
    chunk_begin_ =
        "data: " + dump(envelope(head_.chat ? "chat.completion.chunk" : "text_completion"));
    chunk_begin_.back() = ',';  // for its brace
    chunk_begin_ += "\"choices\":[{\"index\":";
  }
  std::string out = chunk_begin_ + std::to_string(index);
  out += head_.chat ? ",\"delta\":{\"content\":" : ",\"text\":";
  out += dump(text);
  if (head_.chat) out += '}';
  out += ",\"logprobs\":null,\"finish_reason\":null}]";
  if (head_.include_usage) out += ",\"usage\":null";
  return out + "}\n\n";
}

std::string ResponseWriter::events(const Delta& delta) {
  if (delta.timings) timings_ = delta.timings;
  Choice& choice = choices_[delta.choice];
  std::string out;
  auto content = [&](const std::string& text) {
    return head_.chat ? Json{{"content", text}} : Json(text);
  };
  if (head_.chat && !std::exchange(choice.begun, true)) {
    out += event(dump(chunk(delta.choice, {{"role", "assistant"}, {"content", ""}}, {}, nullptr)));
  }
  const auto piece = choice.parser ? choice.parser->push(delta.text, delta.finish.has_value())
                                   : ToolCallParser::Piece{.content = delta.text, .calls = {}};
  if (!delta.tokens.empty()) {
    out +=
        event(dump(chunk(delta.choice, content(piece.content), logprobs(delta.tokens), nullptr)));
  } else if (!piece.content.empty()) {
    out += text_event(delta.choice, piece.content);
  }
  for (const auto& call : piece.calls) {
    Json calls = {{"tool_calls", Json::array({call_json(delta.choice, call, true)})}};
    out += event(dump(chunk(delta.choice, std::move(calls), {}, nullptr)));
  }
  if (delta.finish) {
    choice.finish = delta.finish;
    const Json nothing = head_.chat ? Json::object() : Json("");
    out += event(dump(chunk(delta.choice, nothing, {}, finish_of(choice))));
  }
  return out;
}

std::string ResponseWriter::events(const Usage& usage) {
  std::string out;
  if (head_.include_usage) {
    Json chunk = envelope(head_.chat ? "chat.completion.chunk" : "text_completion");
    chunk["choices"] = Json::array();
    chunk["usage"] = usage_json(usage);
    out += event(dump(chunk));
  }
  return out + event("[DONE]");
}

std::string ResponseWriter::events(const ApiError& error) { return event(to_json(error)); }

std::string ResponseWriter::comment() { return ": still working\n\n"; }

void ResponseWriter::add(Delta delta) {
  if (delta.timings) timings_ = delta.timings;
  Choice& choice = choices_[delta.choice];
  choice.text += delta.text;
  choice.has_logprobs |= !delta.tokens.empty();
  std::move(delta.tokens.begin(), delta.tokens.end(), std::back_inserter(choice.tokens));
  if (delta.finish) choice.finish = delta.finish;
}

ResponseWriter::Json ResponseWriter::message(uint32_t index) {
  Choice& choice = choices_[index];
  Json message = {{"role", "assistant"}, {"content", choice.text}, {"refusal", nullptr}};
  if (!choice.parser) return message;
  const auto piece = choice.parser->push(choice.text, true);
  message["content"] = piece.content;
  if (piece.calls.empty()) return message;
  if (piece.content.empty()) message["content"] = nullptr;
  for (const auto& call : piece.calls) {
    message["tool_calls"].push_back(call_json(index, call, false));
  }
  return message;
}

// Ids are made from that of the answer: letters and digits, nine of them where the model's template
// asks for so many.
ResponseWriter::Json ResponseWriter::call_json(uint32_t index, const ToolCall& call,
                                               bool streamed) {
  const size_t number = choices_[index].calls++;
  const std::string random = head_.id.substr(head_.id.find('-') + 1);
  const std::string id = head_.tools->format == ToolFormat::mistral
                             ? fmt::format("{:.5}{:02x}{:02x}", random, index & 255, number & 255)
                             : fmt::format("call_{:.16}{:04x}{:04x}", random, index, number);
  Json out = Json::object();
  if (streamed) out["index"] = number;
  out["id"] = id;
  out["type"] = "function";
  out["function"] = {{"name", call.name}, {"arguments", call.arguments}};
  return out;
}

const char* ResponseWriter::finish_of(const Choice& choice) {
  const FinishReason reason = choice.finish.value_or(FinishReason::stop);
  return choice.calls > 0 && reason == FinishReason::stop ? "tool_calls" : to_string(reason);
}

std::string ResponseWriter::whole(const Usage& usage) {
  Json body = envelope(head_.chat ? "chat.completion" : "text_completion");
  Json list = Json::array();
  for (size_t i = 0; i < choices_.size(); ++i) {
    Choice& choice = choices_[i];
    Json item = {{"index", i}};
    if (head_.chat) {
      item["message"] = message(static_cast<uint32_t>(i));
    } else {
      item["text"] = choice.text;
    }
    item["logprobs"] = choice.has_logprobs ? logprobs(choice.tokens) : Json();
    item["finish_reason"] = finish_of(choice);
    list.push_back(std::move(item));
  }
  body["choices"] = std::move(list);
  body["usage"] = usage_json(usage);
  if (timings_) body["timings"] = timings_json(*timings_);
  return dump(body);
}

ResponseWriter::Json ResponseWriter::token_entry(uint32_t token,
                                                 std::optional<float> logprob) const {
  const std::string_view name = text_->token_name(token);
  Json bytes = Json::array();
  for (const char c : name) bytes.push_back(static_cast<uint8_t>(c));
  return {{"token", std::string(name)},
          {"logprob", logprob ? Json(finite(*logprob)) : Json()},
          {"bytes", std::move(bytes)}};
}

ResponseWriter::Json ResponseWriter::logprobs(const std::vector<TokenRecord>& tokens) const {
  if (head_.chat) {
    Json content = Json::array();
    for (const auto& record : tokens) {
      Json entry = token_entry(record.token, record.logprob);
      Json top = Json::array();
      for (const auto& other : record.top) top.push_back(token_entry(other.token, other.logprob));
      entry["top_logprobs"] = std::move(top);
      content.push_back(std::move(entry));
    }
    return {{"content", std::move(content)}, {"refusal", nullptr}};
  }
  Json names = Json::array();
  Json values = Json::array();
  Json tops = Json::array();
  Json offsets = Json::array();
  for (const auto& record : tokens) {
    names.push_back(std::string(text_->token_name(record.token)));
    values.push_back(record.logprob ? Json(finite(*record.logprob)) : Json());
    Json top;  // null for the first token of an echoed prompt
    if (record.logprob) {
      top = Json::object();
      for (const auto& other : record.top) {
        top[std::string(text_->token_name(other.token))] = finite(other.logprob);
      }
      top[std::string(text_->token_name(record.token))] = finite(*record.logprob);
    }
    tops.push_back(std::move(top));
    offsets.push_back(record.text_offset);
  }
  return {{"tokens", std::move(names)},
          {"token_logprobs", std::move(values)},
          {"top_logprobs", std::move(tops)},
          {"text_offset", std::move(offsets)}};
}

// As llama-server has them. The first token of an answer comes with its prompt, so that the speed
// of the others is that of the tokens after it.
ResponseWriter::Json ResponseWriter::timings_json(const Timings& timings) {
  const Usage& usage = timings.usage;
  const auto ms = [](std::chrono::duration<double> time) { return time.count() * 1e3; };
  const auto rate = [](uint64_t tokens, std::chrono::duration<double> time) {
    return tokens > 0 && time.count() > 0 ? Json(static_cast<double>(tokens) / time.count())
                                          : Json();
  };
  const uint64_t prompt = usage.prompt_tokens - std::min(usage.prompt_tokens, usage.cached_tokens);
  const uint64_t predicted = usage.completion_tokens;
  return {{"queue_ms", ms(timings.queue)},
          {"prompt_n", prompt},
          {"prompt_ms", ms(timings.prompt)},
          {"prompt_per_second", rate(prompt, timings.prompt)},
          {"cached_n", usage.cached_tokens},
          {"predicted_n", predicted},
          {"predicted_ms", ms(timings.predicted)},
          {"predicted_per_second", rate(predicted > 0 ? predicted - 1 : 0, timings.predicted)}};
}

ResponseWriter::Json ResponseWriter::usage_json(const Usage& usage) {
  return {{"prompt_tokens", usage.prompt_tokens},
          {"completion_tokens", usage.completion_tokens},
          {"total_tokens", usage.prompt_tokens + usage.completion_tokens},
          {"prompt_tokens_details", {{"cached_tokens", usage.cached_tokens}}}};
}

}  // namespace flexllm::server
