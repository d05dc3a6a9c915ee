// Pieces of JSON Schema (2020-12, as OpenAPI 3.1 takes it), written briefly. Pure functions.
#pragma once

#include <fmt/format.h>

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "server/api/openai_request.h"

namespace flexllm::server::openapi {

using Json = nlohmann::ordered_json;

inline Json boolean() { return {{"type", "boolean"}}; }
inline Json text() { return {{"type", "string"}}; }
inline Json number(Bounds bounds) {
  return {{"type", "number"}, {"minimum", bounds.low}, {"maximum", bounds.high}};
}
inline Json integer(int64_t low, int64_t high) {
  return {{"type", "integer"}, {"minimum", low}, {"maximum", high}};
}
inline Json count() { return {{"type", "integer"}, {"minimum", 0}}; }
inline Json one_of_texts(std::vector<std::string> values) {
  return {{"type", "string"}, {"enum", std::move(values)}};
}
inline Json list(Json items) { return {{"type", "array"}, {"items", std::move(items)}}; }
inline Json list(Json items, size_t min, size_t max) {
  Json schema = list(std::move(items));
  schema["minItems"] = min;
  if (max > 0) schema["maxItems"] = max;  // 0: no limit
  return schema;
}
inline Json any_of(std::vector<Json> schemas) { return {{"anyOf", std::move(schemas)}}; }
inline Json ref(const std::string& name) {
  return {{"$ref", fmt::format("#/components/schemas/{}", name)}};
}

// null, or what `schema` says: a member that is null counts as absent.
inline Json nullable(Json schema) {
  if (schema.contains("type") && schema["type"].is_string() && !schema.contains("enum")) {
    schema["type"] = Json::array({schema["type"], "null"});
    return schema;
  }
  return any_of({std::move(schema), {{"type", "null"}}});
}

inline Json described(Json schema, const char* description) {
  schema["description"] = description;
  return schema;
}

// An object with these members and no others.
inline Json object(Json properties, std::vector<std::string> required) {
  Json schema = {{"type", "object"}, {"properties", std::move(properties)}};
  if (!required.empty()) schema["required"] = std::move(required);
  schema["additionalProperties"] = false;
  return schema;
}

// Holds if member `name` is absent or as `schema` says.
inline Json member(const char* name, Json schema) {
  return {{"properties", {{name, std::move(schema)}}}};
}
// Holds if member `name` is there and as `schema` says.
inline Json given(const char* name, Json schema) {
  return {{"properties", {{name, std::move(schema)}}}, {"required", Json::array({name})}};
}
inline Json absent(const char* name) { return member(name, {{"type", "null"}}); }

}  // namespace flexllm::server::openapi
