// What openai_request.cpp and service_text.cpp take. The bounds are theirs.
#include "server/api/openapi/requests.h"

#include <fmt/format.h>

#include <limits>

namespace flexllm::server::openapi {
namespace {

constexpr int64_t kMaxInt = std::numeric_limits<int32_t>::max();

// A pattern of the decimal numbers below `end`, without leading zeros. For the digits d1 d2 ... of
// end - 1: fewer digits, or the same up to some place and less there, or the number itself.
std::string numbers_below(uint32_t end) {
  const std::string last = std::to_string(end - 1);
  std::string pattern = last;
  for (size_t i = 0; i < last.size(); ++i) {
    const char least = i == 0 && last.size() > 1 ? '1' : '0';
    if (last[i] <= least) continue;
    pattern += fmt::format("|{}[{}-{}][0-9]{{{}}}", last.substr(0, i), least,
                           static_cast<char>(last[i] - 1), last.size() - i - 1);
  }
  if (last.size() > 1) pattern += fmt::format("|0|[1-9][0-9]{{0,{}}}", last.size() - 2);
  return fmt::format("^({})$", pattern);
}

Json logit_bias(uint32_t vocab) {
  Json schema = {{"type", "object"}, {"additionalProperties", number(kLogitBias)}};
  schema["propertyNames"] = {{"pattern", vocab > 0 ? numbers_below(vocab) : "^[0-9]+$"}};
  return described(nullable(std::move(schema)),
                   "By token id; is added to the logit. -100 bans the token.");
}

Json stop() {
  Json one = {{"type", "string"}, {"minLength", 1}, {"maxLength", kMaxStopCharacters}};
  Json schema = any_of({one, list(one, 0, kMaxStopStrings), {{"type", "null"}}});
  return described(std::move(schema), "Ends the answer and is not shown.");
}

Json stream_options() {
  Json schema = object({{"include_usage", nullable(boolean())}}, {});
  return described(nullable(std::move(schema)), "Only with `stream`.");
}

Json response_format() {
  Json name = text();
  name["pattern"] = "^[a-zA-Z0-9_-]{1,64}$";
  Json schema = object({{"name", std::move(name)},
                        {"description", nullable(text())},
                        {"strict", described(nullable(boolean()), "It always is.")},
                        {"schema", described({{"type", "object"}},
                                             "A JSON schema; a keyword beyond those of "
                                             "docs/serving.md gets 400 with its place.")}},
                       {"name", "schema"});
  return described(
      any_of({object({{"type", one_of_texts({"text", "json_object"})}}, {"type"}),
              object({{"type", one_of_texts({"json_schema"})}, {"json_schema", std::move(schema)}},
                     {"type", "json_schema"}),
              {{"type", "null"}}}),
      "What the answer must be; it is that unless its length cuts it.");
}

// What chats and completions share.
Json common(const RequestLimits& limits) {
  const auto tokens = [&](int64_t low) { return nullable(integer(low, kMaxInt)); };
  return {
      {"model", described(nullable(text()), "The served name, 'default', or absent.")},
      {"max_tokens", described(tokens(0), "Of each answer.")},
      {"max_completion_tokens", described(tokens(0), "The same; not both.")},
      {"min_tokens", described(tokens(0), "Until then nothing but the length ends the answer.")},
      {"ignore_eos", described(nullable(boolean()), "The model's end tokens do not end it.")},
      {"stop", stop()},
      {"stop_token_ids", nullable(list(ref("TokenId")))},
      {"temperature", described(nullable(number(kTemperature)), "0 is greedy.")},
      {"top_p", nullable(number(kTopP))},
      {"top_k", described(nullable(integer(-1, kMaxInt)), "0 and -1: off.")},
      {"min_p", nullable(number(kMinP))},
      {"presence_penalty", nullable(number(kPenalty))},
      {"frequency_penalty", nullable(number(kPenalty))},
      {"repetition_penalty", described(nullable(number(kRepetitionPenalty)), "Counts the prompt.")},
      {"logit_bias", logit_bias(limits.vocab)},
      {"seed", described(nullable(integer(std::numeric_limits<int64_t>::min(),
                                          std::numeric_limits<int64_t>::max())),
                         "The same request then gives the same text.")},
      {"n", described(nullable(integer(1, limits.max_choices)), "Answers to each prompt.")},
      {"stream", nullable(boolean())},
      {"stream_options", stream_options()},
      {"priority", described(nullable(integer(-kMaxInt, kMaxInt)), "Lower goes first.")},
      {"user", described(nullable(text()), "Changes nothing.")},
      {"response_format", response_format()},
  };
}

// Rules that bind several members.
std::vector<Json> common_rules() {
  return {any_of({absent("max_tokens"), absent("max_completion_tokens")}),
          any_of({absent("stream_options"), given("stream", {{"const", true}})})};
}

Json some_text() { return {{"type", "string"}, {"minLength", 1}}; }

// What the model called, as answers carry it and as clients send it back.
Json tool_call() {
  const Json function =
      object({{"name", some_text()}, {"arguments", described(text(), "Of a JSON object.")}},
             {"name", "arguments"});
  return object({{"id", some_text()}, {"type", one_of_texts({"function"})}, {"function", function}},
                {"id", "type", "function"});
}

Json messages() {
  const Json part = object({{"type", one_of_texts({"text"})}, {"text", text()}}, {"type", "text"});
  const Json content = any_of({text(), list(part, 1, 0)});
  const Json said =
      object({{"role", one_of_texts({"system", "developer", "user"})}, {"content", content}},
             {"role", "content"});
  const Json answered = object({{"role", one_of_texts({"assistant"})},
                                {"content", content},
                                {"tool_calls", nullable(list(tool_call(), 0, kMaxToolCalls))}},
                               {"role", "content"});
  const Json called = object({{"role", one_of_texts({"assistant"})},
                              {"content", any_of({content, {{"type", "null"}}})},
                              {"tool_calls", list(tool_call(), 1, kMaxToolCalls)}},
                             {"role", "tool_calls"});
  const Json result = object({{"role", one_of_texts({"tool"})},
                              {"content", content},
                              {"tool_call_id", some_text()},
                              {"name", nullable(text())}},
                             {"role", "content", "tool_call_id"});
  return list(any_of({said, answered, called, result}), 1, 0);
}

// Rules that bind `tools` to other members.
std::vector<Json> tool_rules() {
  const Json no_choice = any_of({one_of_texts({"none", "auto"}), {{"type", "null"}}});
  const Json none = any_of({{{"type", "array"}, {"maxItems", 0}}, {{"type", "null"}}});
  const Json plain = any_of({member("type", {{"const", "text"}}), {{"type", "null"}}});
  return {any_of({member("tool_choice", no_choice), given("tools", list(Json::object(), 1, 0))}),
          any_of({member("response_format", plain), member("tools", none),
                  given("tool_choice", {{"const", "none"}})})};
}

Json tools() {
  Json name = text();
  name["pattern"] = "^[a-zA-Z0-9_-]{1,64}$";
  const Json parameters = {{"type", Json::array({"object", "null"})}};
  const Json function =
      object({{"name", std::move(name)},
              {"description", nullable(text())},
              {"parameters", described(parameters, "A JSON schema of an object.")},
              {"strict", described(nullable(boolean()), "Changes nothing.")}},
             {"name"});
  return described(
      nullable(list(object({{"type", one_of_texts({"function"})}, {"function", function}},
                           {"type", "function"}),
                    0, kMaxTools)),
      "Functions that the model may call, with different names; 501 if it cannot.");
}

Json tool_choice() {
  const Json one = object(
      {{"type", one_of_texts({"function"})}, {"function", object({{"name", text()}}, {"name"})}},
      {"type", "function"});
  return described(any_of({one_of_texts({"none", "auto", "required"}), one, {{"type", "null"}}}),
                   "required, or a function: the arguments are held to their schema.");
}

Json chat(const RequestLimits& limits) {
  Json members = {{"messages", messages()}};
  members.update(common(limits));
  for (const char* name : {"max_tokens", "max_completion_tokens"}) members[name]["minimum"] = 1;
  members["tools"] = tools();
  members["tool_choice"] = tool_choice();
  members["parallel_tool_calls"] = nullable(boolean());
  members["logprobs"] = nullable(boolean());
  members["top_logprobs"] =
      described(nullable(integer(0, kMaxTopLogprobs)), "Only with `logprobs`.");
  Json schema = object(std::move(members), {"messages"});
  schema["allOf"] = common_rules();
  for (auto& rule : tool_rules()) schema["allOf"].push_back(std::move(rule));
  schema["allOf"].push_back(any_of({absent("top_logprobs"), given("logprobs", {{"const", true}})}));
  return schema;
}

// Prompts times n is bounded: up to `prompts` prompts with up to max_choices / prompts choices
// each.
Json choices_rule(uint32_t max_choices, const Json& prompt) {
  std::vector<Json> cases;
  uint32_t prompts = max_choices;
  while (prompts > 0) {
    const uint32_t n = max_choices / prompts;
    Json one = member(
        "prompt", prompts > 1 ? list(prompt, 1, prompts) : any_of({prompt, list(prompt, 1, 1)}));
    one["properties"]["n"] = nullable(integer(1, n));
    cases.push_back(std::move(one));
    prompts = prompts > 1 ? max_choices / (n + 1) : 0;
  }
  return any_of(std::move(cases));
}

Json completion(const RequestLimits& limits) {
  const Json prompt = any_of({{{"type", "string"}, {"minLength", 1}}, list(ref("TokenId"), 1, 0)});
  Json members = {{"prompt", described(any_of({prompt, list(prompt, 1, limits.max_choices)}),
                                       "One or several, as text or as token ids.")}};
  members.update(common(limits));
  members["logprobs"] = nullable(integer(0, kMaxTopLogprobs));
  members["echo"] = described(nullable(boolean()), "The prompt comes first.");
  Json schema = object(std::move(members), {"prompt"});
  schema["allOf"] = common_rules();
  std::vector<Json> no_tokens = {given("echo", {{"const", true}})};
  Json some = member("max_tokens", nullable(integer(1, kMaxInt)));
  some["properties"]["max_completion_tokens"] = nullable(integer(1, kMaxInt));
  no_tokens.push_back(std::move(some));
  schema["allOf"].push_back(any_of(std::move(no_tokens)));
  schema["allOf"].push_back(choices_rule(limits.max_choices, prompt));
  return schema;
}

}  // namespace

Json request_schemas(const RequestLimits& limits) {
  const Json model = nullable(text());
  const Json template_request = object({{"model", model},
                                        {"messages", messages()},
                                        {"tools", tools()},
                                        {"add_generation_prompt", nullable(boolean())}},
                                       {"messages"});
  return {
      {"TokenId", integer(0, limits.vocab > 0 ? limits.vocab - 1 : kMaxInt)},
      {"ChatRequest", chat(limits)},
      {"CompletionRequest", completion(limits)},
      {"TokenizeRequest",
       object({{"model", model}, {"prompt", text()}, {"add_special_tokens", nullable(boolean())}},
              {"prompt"})},
      {"DetokenizeRequest",
       object({{"model", model}, {"tokens", list(ref("TokenId"))}}, {"tokens"})},
      {"TemplateRequest", template_request},
  };
}

}  // namespace flexllm::server::openapi
