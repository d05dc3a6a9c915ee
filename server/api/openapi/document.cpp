#include "server/api/openapi/document.h"

#include "server/api/openapi/requests.h"
#include "server/api/openapi/responses.h"

namespace flexllm::server::openapi {
namespace {

constexpr const char* kJson = "application/json";

Json content(const char* type, Json schema) { return {{type, {{"schema", std::move(schema)}}}}; }

// What comes back: 200 with `good`, or an error.
Json operation(const char* id, const char* summary, const char* description, Json good) {
  Json result = {{"operationId", id}, {"summary", summary}};
  result["responses"]["200"] = {{"description", description}, {"content", std::move(good)}};
  result["responses"]["default"] = {{"description", "An error."},
                                    {"content", content(kJson, ref("Error"))}};
  return result;
}

Json get(const char* id, const char* summary, const char* description, Json good) {
  return {{"get", operation(id, summary, description, std::move(good))}};
}

Json post(const char* id, const char* summary, const char* body, const char* description,
          Json good) {
  Json result = operation(id, summary, description, std::move(good));
  result["requestBody"] = {{"required", true}, {"content", content(kJson, ref(body))}};
  return {{"post", std::move(result)}};
}

Json generated(const char* schema) {
  Json good = content(kJson, ref(schema));
  good["text/event-stream"] = Json::object();  // 3.1 has no schema of an event
  return good;
}

Json open(Json path) {
  path["get"]["security"] = Json::array();
  return path;
}

Json paths() {
  const auto json = [](const char* schema) { return content(kJson, ref(schema)); };
  Json model = get("model", "The model", "If it has this name.", json("Model"));
  model["get"]["parameters"] =
      Json::array({{{"name", "id"}, {"in", "path"}, {"required", true}, {"schema", text()}}});
  return {
      {"/v1/chat/completions",
       post("chat", "Answer in a chat", "ChatRequest",
            "The answer; with `stream` its chunks as server-sent events, then `data: [DONE]`.",
            generated("Chat"))},
      {"/v1/completions",
       post("completion", "Continue a text", "CompletionRequest",
            "The text; with `stream` its chunks as server-sent events, then `data: [DONE]`.",
            generated("Completion"))},
      {"/v1/models", get("models", "The models: there is one", "A list.", json("Models"))},
      {"/v1/models/{id}", std::move(model)},
      {"/tokenize",
       post("tokenize", "Text to token ids", "TokenizeRequest", "The ids.", json("Tokens"))},
      {"/detokenize",
       post("detokenize", "Token ids to text", "DetokenizeRequest", "The text.", json("Text"))},
      {"/apply-template", post("applyTemplate", "A chat as the model sees it", "TemplateRequest",
                               "What the model's template makes of the messages.", json("Prompt"))},
      {"/health", open(get("health", "Whether the process lives", "It does.", json("Status")))},
      {"/ready", open(get("ready", "Whether requests are taken", "They are; otherwise 503.",
                          json("Status")))},
      {"/version", get("version", "Of the server", "The version.", json("Version"))},
      {"/state", get("state", "What the server is doing", "The state.", json("State"))},
      {"/metrics",
       get("metrics", "For Prometheus", "Prometheus text.", content("text/plain", text()))},
  };
}

}  // namespace

nlohmann::ordered_json document(const RequestLimits& limits, bool keys) {
  Json schemas = request_schemas(limits);
  schemas.update(response_schemas());
  Json result = {
      {"openapi", "3.1.0"},
      {"info",
       {{"title", "FlexLLM-Server"},
        {"version", "1"},
        {"description",
         "The OpenAI API on an FPGA. A field that is not described here is refused by its name, "
         "with 400, or with 501 where OpenAI's API has it. A field that is null counts as absent."},
        {"license", {{"name", "Apache-2.0"}, {"identifier", "Apache-2.0"}}}}},
      {"paths", paths()},
      {"components", {{"schemas", std::move(schemas)}}}};
  if (keys) {
    result["components"]["securitySchemes"]["key"] = {{"type", "http"}, {"scheme", "bearer"}};
    result["security"] = Json::array({{{"key", Json::array()}}});
  }
  return result;
}

}  // namespace flexllm::server::openapi
