// What openai_response.cpp, error.cpp and service*.cpp write.
#include "server/api/openapi/responses.h"

namespace flexllm::server::openapi {
namespace {

Json constant(const char* value) { return {{"const", value}}; }

Json finish_reason() { return one_of_texts({"stop", "length", "tool_calls"}); }

// Natural logarithms, at least -9999.
Json logprob() { return {{"type", "number"}}; }

Json usage() {
  return object(
      {{"prompt_tokens", count()},
       {"completion_tokens", count()},
       {"total_tokens", count()},
       {"prompt_tokens_details", object({{"cached_tokens", count()}}, {"cached_tokens"})}},
      {"prompt_tokens", "completion_tokens", "total_tokens", "prompt_tokens_details"});
}

Json chat_logprobs() {
  const Json token = {{"token", text()}, {"logprob", logprob()}, {"bytes", list(integer(0, 255))}};
  Json entry = token;
  entry["top_logprobs"] = list(object(token, {"token", "logprob", "bytes"}));
  Json entries = list(object(std::move(entry), {"token", "logprob", "bytes", "top_logprobs"}));
  return nullable(object({{"content", std::move(entries)}, {"refusal", {{"type", "null"}}}},
                         {"content", "refusal"}));
}

Json completion_logprobs() {
  const Json top = {{"type", Json::array({"object", "null"})}, {"additionalProperties", logprob()}};
  return nullable(object({{"tokens", list(text())},
                          {"token_logprobs", list(nullable(logprob()))},
                          {"top_logprobs", list(top)},
                          {"text_offset", list(count())}},
                         {"tokens", "token_logprobs", "top_logprobs", "text_offset"}));
}

Json answer(const char* kind, Json choice_members, std::vector<std::string> choice_required) {
  choice_members["index"] = count();
  choice_members["finish_reason"] = finish_reason();
  for (const char* name : {"index", "finish_reason", "logprobs"})
    choice_required.emplace_back(name);
  return object({{"id", text()},
                 {"object", constant(kind)},
                 {"created", count()},
                 {"model", text()},
                 {"choices", list(object(std::move(choice_members), std::move(choice_required)))},
                 {"usage", ref("Usage")},
                 {"timings", ref("Timings")}},
                {"id", "object", "created", "model", "choices", "usage", "timings"});
}

Json timings() {
  const Json number = {{"type", "number"}};
  Json schema = object(
      {{"queue_ms", described(number, "From arrival to the first place on the card.")},
       {"prompt_n", described(count(), "Tokens of prompts that were computed.")},
       {"prompt_ms", described(number, "From there to the first token.")},
       {"prompt_per_second", nullable(number)},
       {"cached_n", described(count(), "Tokens of prompts that were not computed again.")},
       {"predicted_n", described(count(), "Tokens of answers.")},
       {"predicted_ms", described(number, "From the first token to the last.")},
       {"predicted_per_second", described(nullable(number), "Of the tokens after the first.")}},
      {});
  for (const auto& [name, member] : schema["properties"].items()) {
    schema["required"].push_back(name);
  }
  return schema;
}

Json state() {
  const Json number = {{"type", "number"}};
  const Json device =
      object({{"name", text()},
              {"emulated", described(boolean(), "If so, no figure here is a card's.")},
              {"power_watts", described(nullable(number), "Of the board.")},
              {"temperature_celsius", described(nullable(number), "Of the FPGA.")},
              {"joules_per_token", described(nullable(number), "Of the board, since the start.")}},
             {"name", "emulated", "power_watts", "temperature_celsius", "joules_per_token"});
  const auto pair = [](const char* first, const char* second) {
    return object({{first, count()}, {second, count()}}, {first, second});
  };
  Json schema = object(
      {{"status", one_of_texts({"loading", "ready", "recovering", "lost", "draining", "stopped"})},
       {"version", text()},
       {"model", nullable(text())},
       {"max_model_len", nullable(count())},
       {"device", nullable(device)},
       {"requests", pair("running", "waiting")},
       {"sequences", described(pair("running", "max"), "Choices on the card.")},
       {"kv_pages", pair("used", "total")},
       {"tokens_per_second", described(nullable(number), "Of all requests, over the last 10 s.")},
       {"generated_tokens", count()}},
      {});
  for (const auto& [name, member] : schema["properties"].items()) {
    schema["required"].push_back(name);
  }
  return schema;
}

Json error() {
  Json members = {{"message", text()},
                  {"type", text()},
                  {"param", described(nullable(text()), "The field at fault.")},
                  {"code", nullable(text())},
                  {"n_prompt_tokens", count()},
                  {"n_ctx", count()}};
  return object({{"error", object(std::move(members), {"message", "type", "param", "code"})}},
                {"error"});
}

}  // namespace

Json response_schemas() {
  const Json function = object({{"name", text()}, {"arguments", text()}}, {"name", "arguments"});
  const Json call = object({{"id", text()}, {"type", constant("function")}, {"function", function}},
                           {"id", "type", "function"});
  const Json message = object({{"role", constant("assistant")},
                               {"content", nullable(text())},
                               {"refusal", {{"type", "null"}}},
                               {"tool_calls", list(call, 1, 0)}},
                              {"role", "content", "refusal"});
  return {
      {"Error", error()},
      {"Usage", usage()},
      {"Timings", timings()},
      {"Chat", answer("chat.completion", {{"message", message}, {"logprobs", chat_logprobs()}},
                      {"message"})},
      {"Completion", answer("text_completion",
                            {{"text", text()}, {"logprobs", completion_logprobs()}}, {"text"})},
      {"Model", object({{"id", text()},
                        {"object", constant("model")},
                        {"created", count()},
                        {"owned_by", text()},
                        {"max_model_len", described(count(), "Tokens of prompt and answer.")}},
                       {"id", "object", "created", "owned_by", "max_model_len"})},
      {"Models",
       object({{"object", constant("list")}, {"data", list(ref("Model"))}}, {"object", "data"})},
      {"Tokens",
       object({{"tokens", list(ref("TokenId"))}, {"count", count()}, {"max_model_len", count()}},
              {"tokens", "count", "max_model_len"})},
      {"Text", object({{"prompt", text()}}, {"prompt"})},
      {"Prompt",
       object({{"prompt", text()}, {"tokens", list(ref("TokenId"))}}, {"prompt", "tokens"})},
      {"Status", object({{"status", text()}}, {"status"})},
      {"State", state()},
      {"Version", object({{"version", text()}}, {"version"})},
  };
}

}  // namespace flexllm::server::openapi
