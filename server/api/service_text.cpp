// The endpoints that take text: generation, tokens, templates.
#include <openssl/rand.h>

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>

#include "server/api/fields.h"
#include "server/api/generation_reply.h"
#include "server/api/json.h"
#include "server/api/service.h"

namespace flexllm::server {
namespace {

using Json = nlohmann::ordered_json;

std::string random_id() {
  constexpr std::string_view kDigits = "0123456789abcdef";
  std::array<unsigned char, 16> bytes{};
  RAND_bytes(bytes.data(), static_cast<int>(bytes.size()));
  std::string id;
  for (const unsigned char byte : bytes) {
    id += kDigits[byte >> 4];
    id += kDigits[byte & 15];
  }
  return id;
}

HttpReply bad_json(const std::string& message) {
  return reply_of(invalid_request("", message, "invalid_json"));
}

// There is one model: absent, "default" and its name all mean it.
std::optional<HttpReply> wrong_model(const std::string& asked, const std::string& served) {
  if (asked.empty() || asked == served || asked == "default") return std::nullopt;
  return reply_of(
      not_found("There is no such model here; see /v1/models.", "model", "model_not_found"));
}

// What the model's template makes of a chat, or why there is nothing.
tl::expected<ChatPrompt, ApiError> prompt_of(const TextModel& text, const Chat& chat,
                                             bool add_generation_prompt) {
  if (const auto& problem = text.chat_problem(); !problem.empty()) {
    return tl::unexpected(not_supported("messages", problem));
  }
  const bool history = std::any_of(chat.messages.begin(), chat.messages.end(), [](const auto& m) {
    return m.role == "tool" || !m.tool_calls.empty();
  });
  if (text.tool_format() == ToolFormat::none && (history || !chat.tools.is_null())) {
    return tl::unexpected(
        not_supported(chat.tools.is_null() ? "messages" : "tools",
                      "The model's template knows no tools, or none that this server can read."));
  }
  auto prompt = text.chat_prompt(chat, add_generation_prompt);
  if (prompt) return *std::move(prompt);
  return tl::unexpected(invalid_request("messages", prompt.error(), "invalid_messages"));
}

size_t bytes_of(const Chat& chat) {
  size_t bytes = 0;
  for (const auto& message : chat.messages) {
    bytes += message.content.size();
    for (const auto& call : message.tool_calls) bytes += call.arguments.size();
  }
  return bytes;
}

}  // namespace

Answer Service::chat_completions(const HttpRequest& request, const Loaded* loaded) {
  const auto body = parse_body(request.body);
  if (!body) return bad_json(body.error());
  auto api = parse_chat_request(*body, loaded->limits);
  if (!api) return reply_of(api.error());
  return generate(request, *loaded, std::move(*api));
}

Answer Service::completions(const HttpRequest& request, const Loaded* loaded) {
  const auto body = parse_body(request.body);
  if (!body) return bad_json(body.error());
  auto api = parse_completion_request(*body, loaded->limits);
  if (!api) return reply_of(api.error());
  return generate(request, *loaded, std::move(*api));
}

Answer Service::generate(const HttpRequest& request, const Loaded& loaded, ApiRequest api) {
  const ServedModel& model = loaded.model;
  if (auto refused = wrong_model(api.model, model.name)) return *refused;
  GenerationRequest& generation = api.generation;
  auto grammar = grammar_of(api.format, *loaded.grammars);
  if (!grammar) return reply_of(grammar.error());
  generation.grammar = std::move(*grammar);
  std::optional<ToolUse> tools;
  if (api.chat) {
    const Chat chat{std::move(api.messages), api.tools.list};
    if (auto error = too_long(bytes_of(chat), loaded)) {
      error->param = "messages";
      return reply_of(*error);
    }
    auto prompt = prompt_of(*model.text, chat, true);
    if (!prompt) return reply_of(prompt.error());
    generation.prompts.push_back(std::move(prompt->tokens));
    if (api.tools.choice != Tools::Choice::none) {
      tools = ToolUse{model.text->tool_format(), api.tools.names, api.tools.parallel};
    }
    if (api.tools.choice == Tools::Choice::required) {
      auto calls = grammar_of(api.tools, tools->format, *loaded.grammars);
      if (!calls) return reply_of(calls.error());
      generation.grammar = std::move(*calls);
    }
  } else {
    for (auto& input : api.prompts) {
      auto* ids = std::get_if<std::vector<uint32_t>>(&input);
      const auto error = ids ? std::nullopt : too_long(std::get<std::string>(input).size(), loaded);
      if (error) return reply_of(*error);
      generation.prompts.push_back(ids ? std::move(*ids)
                                       : model.text->encode(std::get<std::string>(input), true));
    }
  }
  for (const auto& prompt : generation.prompts) {
    if (prompt.empty()) {
      return reply_of(invalid_request(api.chat ? "messages" : "prompt", "The prompt is empty."));
    }
  }
  generation.id = request.id;
  // Where there are keys shares go by key: whoever has one may call himself any user.
  if (request.key != 0) generation.client = "key " + std::to_string(request.key);
  if (options_.request_timeout.count() > 0) {
    generation.deadline = std::chrono::steady_clock::now() + options_.request_timeout;
  }
  const auto choices = static_cast<uint32_t>(generation.prompts.size()) * generation.n;
  auto results = loaded.scheduler->submit(std::move(generation));
  if (!results) {
    ApiError error = results.error();
    if (api.chat && error.param == "prompt") error.param = "messages";
    return reply_of(error);
  }
  const ResponseHead head{.id = (api.chat ? "chatcmpl-" : "cmpl-") + random_id(),
                          .created = std::chrono::duration_cast<std::chrono::seconds>(
                                         std::chrono::system_clock::now().time_since_epoch())
                                         .count(),
                          .model = model.name,
                          .chat = api.chat,
                          .include_usage = api.include_usage,
                          .tools = std::move(tools)};
  return std::make_unique<GenerationReply>(*results, ResponseWriter(head, choices, model.text),
                                           api.stream);
}

std::optional<ApiError> Service::too_long(size_t bytes, const Loaded& loaded) {
  const size_t least_tokens = bytes / loaded.longest_token;
  const uint32_t context = loaded.scheduler->context_length();
  if (least_tokens <= context) return std::nullopt;
  ApiError error = context_exceeded(least_tokens, context);
  error.message += " Its tokens are not counted, but are at least so many.";
  return error;
}

Answer Service::tokenize(const HttpRequest& request, const Loaded* loaded) {
  const auto body = parse_json(request.body);
  if (!body) return bad_json(body.error());
  Fields fields(*body, "");
  std::string asked;
  std::string prompt;
  bool add_special = true;
  fields.read("model", asked);
  if (fields.find("prompt") == nullptr) fields.fail("prompt", "is required.");
  fields.read("prompt", prompt);
  fields.read("add_special_tokens", add_special);
  if (const auto error = fields.finish()) return reply_of(*error);
  if (auto refused = wrong_model(asked, loaded->model.name)) return *refused;
  if (const auto error = too_long(prompt.size(), *loaded)) return reply_of(*error);
  const auto tokens = loaded->model.text->encode(prompt, add_special);
  const Json reply = {{"tokens", tokens},
                      {"count", tokens.size()},
                      {"max_model_len", loaded->scheduler->context_length()}};
  return HttpReply{.body = dump(reply), .headers = {}};
}

Answer Service::detokenize(const HttpRequest& request, const Loaded* loaded) {
  const auto body = parse_json(request.body);
  if (!body) return bad_json(body.error());
  Fields fields(*body, "");
  std::string asked;
  std::vector<uint32_t> ids;
  fields.read("model", asked);
  if (fields.find("tokens") == nullptr) fields.fail("tokens", "is required.");
  read_token_ids(fields, "tokens", loaded->limits.vocab, ids);
  if (const auto error = fields.finish()) return reply_of(*error);
  if (auto refused = wrong_model(asked, loaded->model.name)) return *refused;
  return HttpReply{.body = dump(Json{{"prompt", loaded->model.text->decode(ids)}}), .headers = {}};
}

Answer Service::apply_template(const HttpRequest& request, const Loaded* loaded) {
  const auto body = parse_body(request.body);
  if (!body) return bad_json(body.error());
  Fields fields(body->fields, "");
  std::string asked;
  bool add_generation_prompt = true;
  fields.read("model", asked);
  Chat chat;
  chat.messages = read_messages(fields);
  for (const char* name : {"tool_choice", "parallel_tool_calls"}) {
    if (fields.find(name) != nullptr) fields.fail(name, "belongs to an answer.");
  }
  chat.tools = read_tools(fields, body->ordered.value("tools", Json())).list;
  fields.read("add_generation_prompt", add_generation_prompt);
  if (const auto error = fields.finish()) return reply_of(*error);
  if (auto refused = wrong_model(asked, loaded->model.name)) return *refused;
  const auto prompt = prompt_of(*loaded->model.text, chat, add_generation_prompt);
  if (!prompt) return reply_of(prompt.error());
  const Json reply = {{"prompt", prompt->text}, {"tokens", prompt->tokens}};
  return HttpReply{.body = dump(reply), .headers = {}};
}

}  // namespace flexllm::server
