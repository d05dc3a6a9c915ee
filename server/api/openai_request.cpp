#include "server/api/openai_request.h"

#include <fmt/format.h>

#include <charconv>
#include <limits>

#include "server/api/json.h"
#include "server/text/text_stream.h"

namespace flexllm::server {
namespace {

using nlohmann::json;

constexpr int64_t kMaxInt = std::numeric_limits<int32_t>::max();
const nlohmann::ordered_json kNothing;
constexpr std::string_view kOldTools = "it is called 'tools' now.";

std::optional<uint32_t> token_id(const json& value, uint32_t vocab) {
  const auto id = integer_of(value);
  if (!id || *id < 0 || *id >= vocab) return std::nullopt;
  return static_cast<uint32_t>(*id);
}

std::optional<std::vector<uint32_t>> token_ids(const json& list, uint32_t vocab) {
  if (!list.is_array()) return std::nullopt;
  std::vector<uint32_t> ids;
  ids.reserve(list.size());
  for (const auto& value : list) {
    const auto id = token_id(value, vocab);
    if (!id) return std::nullopt;
    ids.push_back(*id);
  }
  return ids;
}

void read_stop(Fields& fields, std::vector<std::string>& stop) {
  const json* value = fields.find("stop");
  if (value == nullptr) return;
  if (value->is_string()) {
    stop.push_back(value->get<std::string>());
  } else if (value->is_array()) {
    for (const auto& item : *value) {
      if (!item.is_string()) return fields.fail("stop", "must hold strings.");
      stop.push_back(item.get<std::string>());
    }
  } else {
    return fields.fail("stop", "must be a string or a list of strings.");
  }
  if (stop.size() > kMaxStopStrings) {
    return fields.fail("stop", fmt::format("may hold at most {} strings.", kMaxStopStrings));
  }
  for (const auto& text : stop) {
    if (text.empty()) return fields.fail("stop", "must not hold an empty string.");
    if (characters(text) > kMaxStopCharacters) {
      return fields.fail("stop", fmt::format("must not hold a string of more than {} characters.",
                                             kMaxStopCharacters));
    }
  }
}

void read_logit_bias(Fields& fields, uint32_t vocab, std::map<uint32_t, float>& bias) {
  const json* value = fields.find("logit_bias");
  if (value == nullptr) return;
  if (!value->is_object()) return fields.fail("logit_bias", "must be an object.");
  for (const auto& [key, number] : value->items()) {
    uint32_t id = 0;
    const auto [end, error] = std::from_chars(key.data(), key.data() + key.size(), id);
    // One name for each token: no leading zeros, or two members could mean the same one.
    if (error != std::errc() || end != key.data() + key.size() || id >= vocab ||
        key != std::to_string(id)) {
      return fields.fail("logit_bias", "must have token ids of this model as keys.");
    }
    if (!number.is_number() || std::abs(number.get<double>()) > kLogitBias.high) {
      return fields.fail("logit_bias", "must have numbers between -100 and 100 as values.");
    }
    bias[id] = number.get<float>();
  }
}

void read_sampling(Fields& fields, const RequestLimits& limits, GenerationRequest& request) {
  host::SamplingParams& sampling = request.sampling;
  const auto& defaults = limits.defaults;
  sampling.temperature = defaults.temperature.value_or(1.0f);
  sampling.top_p = defaults.top_p.value_or(1.0f);
  sampling.top_k = defaults.top_k.value_or(0);
  sampling.repetition_penalty = defaults.repetition_penalty.value_or(1.0f);

  fields.read("temperature", sampling.temperature, kTemperature);
  fields.read("top_p", sampling.top_p, kTopP);
  int64_t top_k = sampling.top_k;
  fields.read("top_k", top_k, -1, kMaxInt);
  sampling.top_k = top_k < 0 ? 0 : static_cast<uint32_t>(top_k);
  fields.read("min_p", sampling.min_p, kMinP);
  fields.read("presence_penalty", sampling.presence_penalty, kPenalty);
  fields.read("frequency_penalty", sampling.frequency_penalty, kPenalty);
  fields.read("repetition_penalty", sampling.repetition_penalty, kRepetitionPenalty);
  read_logit_bias(fields, limits.vocab, sampling.logit_bias);
  std::optional<int64_t> seed;
  fields.read("seed", seed, std::numeric_limits<int64_t>::min(),
              std::numeric_limits<int64_t>::max());
  if (seed) {
    request.seeded = true;
    sampling.seed = static_cast<uint64_t>(*seed);
  }
}

void read_ends(Fields& fields, const RequestLimits& limits, GenerationRequest& request) {
  std::optional<uint32_t> completion;
  fields.read("max_tokens", request.max_tokens, 0, kMaxInt);
  fields.read("max_completion_tokens", completion, 0, kMaxInt);
  if (completion) {
    if (request.max_tokens) fields.fail("max_completion_tokens", "is the same as 'max_tokens'.");
    request.max_tokens = completion;
  }
  fields.read("min_tokens", request.min_tokens, 0, kMaxInt);
  fields.read("ignore_eos", request.ignore_eos);
  read_stop(fields, request.stop);
  read_token_ids(fields, "stop_token_ids", limits.vocab, request.stop_token_ids);
}

void read_stream(Fields& fields, ApiRequest& request) {
  fields.read("stream", request.stream);
  const json* options = fields.find("stream_options");
  if (options == nullptr) return;
  if (!request.stream) return fields.fail("stream_options", "is only allowed with 'stream'.");
  Fields inner(*options, "stream_options");
  inner.read("include_usage", request.include_usage);
  if (auto error = inner.finish()) fields.fail(std::move(*error));
}

// Fields that both endpoints have in OpenAI's API, or that clients add.
void read_common(Fields& fields, const RequestBody& body, const RequestLimits& limits,
                 ApiRequest& request) {
  fields.read("model", request.model);
  read_sampling(fields, limits, request.generation);
  read_ends(fields, limits, request.generation);
  read_stream(fields, request);
  fields.read("n", request.generation.n, 1, limits.max_choices);
  fields.read("priority", request.generation.priority, -kMaxInt, kMaxInt);
  fields.read("user", request.generation.client);
  const auto format = body.ordered.find("response_format");
  request.format = read_response_format(fields, format == body.ordered.end() ? kNothing : *format);
}

void read_chat_only(Fields& fields, GenerationRequest& request) {
  bool logprobs = false;
  fields.read("logprobs", logprobs);
  std::optional<uint32_t> top;
  fields.read("top_logprobs", top, 0, kMaxTopLogprobs);
  if (top && !logprobs) fields.fail("top_logprobs", "needs 'logprobs' to be true.");
  if (logprobs) request.logprobs = top.value_or(0);
  if (request.max_tokens == 0u) fields.fail("max_tokens", "must be at least 1 in a chat.");

  fields.refuse("functions", kOldTools);
  fields.refuse("function_call", kOldTools);
  const json* modalities = fields.find("modalities");
  if (modalities != nullptr && *modalities != json::array({"text"})) {
    fields.refuse("modalities", "answers are plain text.");
  }
  for (const auto* name :
       {"audio", "prediction", "reasoning_effort", "verbosity", "web_search_options", "metadata"}) {
    fields.refuse(name, "this server does not have it.");
  }
  bool store = false;
  fields.read("store", store);
  if (store) fields.refuse("store", "nothing is kept.");
  fields.refuse("echo", "it belongs to completions.");
}

void read_tool_calls(Fields& message, const json& list, std::vector<ToolCall>& out) {
  if (!list.is_array()) return message.fail("tool_calls", "must be a list.");
  if (list.size() > kMaxToolCalls) return message.fail("tool_calls", "are too many.");
  for (size_t i = 0; i < list.size() && message.ok(); ++i) {
    Fields call(list[i], message.full_name(fmt::format("tool_calls[{}]", i)));
    ToolCall parsed;
    std::string type;
    call.read("type", type);
    if (type != "function") call.fail("type", "must be 'function'.");
    call.read("id", parsed.id);
    if (parsed.id.empty()) call.fail("id", "is required.");
    if (const json* function = call.find("function")) {
      Fields inner(*function, call.full_name("function"));
      inner.read("name", parsed.name);
      if (parsed.name.empty()) inner.fail("name", "is required.");
      inner.read("arguments", parsed.arguments);
      const auto arguments = parse_ordered(parsed.arguments);
      if (!arguments || !arguments->is_object()) {
        inner.fail("arguments", "must be the text of a JSON object.");
      }
      if (auto error = inner.finish()) call.fail(std::move(*error));
    } else {
      call.fail("function", "is required.");
    }
    if (auto error = call.finish()) message.fail(std::move(*error));
    out.push_back(std::move(parsed));
  }
}

std::string message_text(Fields& message, const json& content) {
  if (content.is_string()) return content.get<std::string>();
  std::string text;
  if (!content.is_array() || content.empty()) {
    message.fail("content", "must be a string or a list of text parts.");
    return text;
  }
  for (size_t i = 0; i < content.size() && message.ok(); ++i) {
    Fields part(content[i], message.full_name(fmt::format("content[{}]", i)));
    std::string type;
    std::string piece;
    part.read("type", type);
    if (part.ok() && type != "text") {
      part.fail(invalid_request(part.full_name("type"),
                                "Only parts of the type 'text' are supported.",
                                "unsupported_content"));
    }
    if (part.find("text") == nullptr) part.fail("text", "is required.");
    part.read("text", piece);
    if (auto error = part.finish()) message.fail(std::move(*error));
    if (i > 0) text += '\n';
    text += piece;
  }
  return text;
}

std::vector<PromptInput> read_prompts(Fields& fields, uint32_t vocab) {
  std::vector<PromptInput> prompts;
  const json* prompt = fields.find("prompt");
  constexpr const char* kShape =
      "must be a string, a list of strings, a list of token ids of this model, or a list of such "
      "lists.";
  if (prompt == nullptr) {
    fields.fail("prompt", "is required.");
  } else if (prompt->is_string()) {
    prompts.emplace_back(prompt->get<std::string>());
  } else if (!prompt->is_array() || prompt->empty()) {
    fields.fail("prompt", kShape);
  } else if (prompt->front().is_number()) {
    auto ids = token_ids(*prompt, vocab);
    if (ids) {
      prompts.emplace_back(std::move(*ids));
    } else {
      fields.fail("prompt", kShape);
    }
  } else {
    for (const auto& item : *prompt) {
      if (item.is_string()) {
        prompts.emplace_back(item.get<std::string>());
        continue;
      }
      auto ids = token_ids(item, vocab);
      if (!ids) {
        fields.fail("prompt", kShape);
        break;
      }
      prompts.emplace_back(std::move(*ids));
    }
  }
  return prompts;
}

}  // namespace

void read_token_ids(Fields& fields, const char* name, uint32_t vocab, std::vector<uint32_t>& out) {
  const json* member = fields.find(name);
  if (member == nullptr) return;
  auto ids = token_ids(*member, vocab);
  if (!ids) return fields.fail(name, "must be a list of token ids of this model.");
  out = std::move(*ids);
}

std::vector<ChatMessage> read_messages(Fields& fields) {
  std::vector<ChatMessage> messages;
  const json* list = fields.find("messages");
  if (list == nullptr || !list->is_array() || list->empty()) {
    fields.fail("messages", "must be a list of at least one message.");
    return messages;
  }
  for (size_t i = 0; i < list->size() && fields.ok(); ++i) {
    Fields message((*list)[i], fmt::format("messages[{}]", i));
    ChatMessage parsed;
    message.read("role", parsed.role);
    if (parsed.role == "developer") parsed.role = "system";
    if (parsed.role == "function") message.refuse("role", kOldTools);
    if (parsed.role != "system" && parsed.role != "user" && parsed.role != "assistant" &&
        parsed.role != "tool") {
      message.fail("role", "must be 'system', 'developer', 'user', 'assistant' or 'tool'.");
    }
    message.refuse("function_call", kOldTools);
    if (const json* calls = message.find("tool_calls")) {
      if (parsed.role == "assistant") {
        read_tool_calls(message, *calls, parsed.tool_calls);
      } else {
        message.fail("tool_calls", "belong to an assistant's message.");
      }
    }
    if (parsed.role == "tool") {
      message.read("tool_call_id", parsed.tool_call_id);
      if (parsed.tool_call_id.empty()) message.fail("tool_call_id", "is required.");
      message.read("name", parsed.name);
    } else {
      message.refuse("tool_call_id", "it belongs to a tool's message.");
      message.refuse("name", "the model's template knows no names.");
    }
    // What answers carry and clients send back: empty it says nothing.
    const json* annotations = message.find("annotations");
    if (annotations != nullptr && *annotations != json::array()) {
      message.refuse("annotations", "answers have none.");
    }
    message.refuse("refusal", "this server makes no refusals.");
    message.refuse("audio", "messages are plain text.");
    if (const json* content = message.find("content")) {
      parsed.content = message_text(message, *content);
    } else if (parsed.tool_calls.empty()) {
      message.fail("content", "is required.");
    }
    if (auto error = message.finish()) fields.fail(std::move(*error));
    messages.push_back(std::move(parsed));
  }
  return messages;
}

tl::expected<ApiRequest, ApiError> parse_chat_request(const RequestBody& body,
                                                      const RequestLimits& limits) {
  Fields fields(body.fields, "");
  ApiRequest request;
  request.chat = true;
  request.messages = read_messages(fields);
  read_common(fields, body, limits, request);
  read_chat_only(fields, request.generation);
  const auto tools = body.ordered.find("tools");
  request.tools = read_tools(fields, tools == body.ordered.end() ? kNothing : *tools);
  if (request.tools.choice != Tools::Choice::none &&
      request.format.kind != ResponseFormat::Kind::text) {
    fields.refuse("response_format", "not together with 'tools'.");
  }
  const json* tier = fields.find("service_tier");
  if (tier != nullptr && *tier != "auto" && *tier != "default") {
    fields.refuse("service_tier", "there is one.");
  }
  if (auto error = fields.finish()) return tl::unexpected(std::move(*error));
  return request;
}

tl::expected<ApiRequest, ApiError> parse_completion_request(const RequestBody& body,
                                                            const RequestLimits& limits) {
  Fields fields(body.fields, "");
  ApiRequest request;
  request.prompts = read_prompts(fields, limits.vocab);
  read_common(fields, body, limits, request);
  GenerationRequest& generation = request.generation;
  fields.read("logprobs", generation.logprobs, 0, kMaxTopLogprobs);
  fields.read("echo", generation.echo);
  if (!generation.max_tokens) {
    generation.max_tokens = std::max(kDefaultCompletionTokens, generation.min_tokens);
  }
  if (*generation.max_tokens == 0 && !generation.echo) {
    fields.fail("max_tokens", "must be at least 1 without 'echo'.");
  }
  if (request.prompts.size() * generation.n > limits.max_choices) {
    fields.fail("prompt", fmt::format("and 'n' ask for more than {} choices.", limits.max_choices));
  }
  uint32_t best_of = generation.n;
  fields.read("best_of", best_of, 1, kMaxInt);
  if (best_of != generation.n) fields.refuse("best_of", "it must be 'n' or absent.");
  const json* suffix = fields.find("suffix");
  if (suffix != nullptr && *suffix != "") fields.refuse("suffix", "text is only continued.");
  if (auto error = fields.finish()) return tl::unexpected(std::move(*error));
  return request;
}

}  // namespace flexllm::server
