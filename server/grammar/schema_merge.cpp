#include "server/grammar/schema_merge.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <vector>

namespace flexllm::server::grammar {
namespace {

constexpr int kMaxMergeDepth = 32;
constexpr int kMaxMerges = 500;

std::vector<std::string> types_of(const Json& type) {
  std::vector<std::string> out;
  if (type.is_string()) out.push_back(type.get<std::string>());
  if (type.is_array()) {
    for (const auto& item : type) {
      if (item.is_string()) out.push_back(item.get<std::string>());
    }
  }
  return out;
}

Json types_of_both(const Json& a, const Json& b) {
  const auto left = types_of(a);
  const auto right = types_of(b);
  const auto has = [](const std::vector<std::string>& list, const char* name) {
    return std::find(list.begin(), list.end(), name) != list.end();
  };
  Json out = Json::array();
  for (const auto& type : left) {
    if (std::find(right.begin(), right.end(), type) != right.end() ||
        (type == "integer" && has(right, "number"))) {
      out.push_back(type);
    }
  }
  if (has(right, "integer") && has(left, "number") && !has(left, "integer")) {
    out.push_back("integer");
  }
  return out;
}

// `const` is an `enum` of one.
void normalise(Json& schema) {
  const auto constant = schema.find("const");
  if (constant == schema.end()) return;
  const Json value = *constant;
  schema.erase("const");
  if (const auto list = schema.find("enum"); list != schema.end() && list->is_array()) {
    const bool listed = std::find(list->begin(), list->end(), value) != list->end();
    *list = listed ? Json::array({value}) : Json::array();
  } else {
    schema["enum"] = Json::array({value});
  }
}

bool closed(const Json& schema) {
  const auto extra = schema.find("additionalProperties");
  return extra != schema.end() && *extra != true;
}

Json both(const Json& a, const Json& b) {
  if (a == b) return a;
  return {{"allOf", Json::array({a, b})}};
}

void merge_properties(const Json& a, const Json& b, Json& out) {
  const auto members = [](const Json& schema) {
    const auto found = schema.find("properties");
    return found != schema.end() && found->is_object() ? *found : Json::object();
  };
  const Json left = members(a);
  const Json right = members(b);
  for (const auto& [from, other, target] :
       {std::tuple(&right, &left, &a), std::tuple(&left, &right, &b)}) {
    for (const auto& [name, value] : from->items()) {
      if (!other->contains(name) && closed(*target)) {
        refuse("'additionalProperties' cannot be merged with properties that only one side has.");
      }
    }
  }
  if (left.empty() && right.empty()) return;
  Json all = left;
  for (const auto& [name, value] : right.items()) {
    all[name] = all.contains(name) ? both(all[name], value) : value;
  }
  out["properties"] = std::move(all);
}

Json merge_keyword(const std::string& name, const Json& a, const Json& b) {
  constexpr std::array<std::string_view, 4> kLower{"minLength", "minItems", "minimum",
                                                   "exclusiveMinimum"};
  constexpr std::array<std::string_view, 4> kUpper{"maxLength", "maxItems", "maximum",
                                                   "exclusiveMaximum"};
  if (a == b) return a;
  const bool numbers = a.is_number() && b.is_number();
  if (numbers && std::find(kLower.begin(), kLower.end(), name) != kLower.end()) {
    return a < b ? b : a;
  }
  if (numbers && std::find(kUpper.begin(), kUpper.end(), name) != kUpper.end()) {
    return a < b ? a : b;
  }
  if (name == "type") return types_of_both(a, b);
  if (name == "required" && a.is_array() && b.is_array()) {
    Json out = a;
    for (const auto& item : b) {
      if (std::find(out.begin(), out.end(), item) == out.end()) out.push_back(item);
    }
    return out;
  }
  if (name == "enum" && a.is_array() && b.is_array()) {
    Json out = Json::array();
    for (const auto& item : a) {
      if (std::find(b.begin(), b.end(), item) != b.end()) out.push_back(item);
    }
    return out;
  }
  if (name == "items" || name == "additionalProperties") return both(a, b);
  refuse(fmt::format("'{}' differs in schemas that hold at once, which is not supported.", name));
}

}  // namespace

Json SchemaMerger::merged(const Json& first, const Json& second, int depth) {
  if (++merges_ > kMaxMerges) refuse("'allOf' and '$ref' ask for too many merges.");
  const Json a = flattened(first, depth);
  const Json b = flattened(second, depth);
  if (a == true) return b;
  if (b == true) return a;
  if (a == false || b == false) return false;
  Json out = a;
  for (const auto& [name, value] : b.items()) {
    if (is_annotation(name) || name == "properties") continue;
    out[name] = a.contains(name) ? merge_keyword(name, a[name], value) : value;
  }
  merge_properties(a, b, out);
  return out;
}

Json SchemaMerger::flattened(const Json& schema, int depth) {
  if (depth > kMaxMergeDepth) refuse("'allOf' and '$ref' lead too deep, or in a circle.");
  if (schema.is_boolean()) return schema;
  if (!schema.is_object()) refuse("A schema must be an object, true or false.");
  Json out = schema;
  normalise(out);
  std::vector<Json> parts;
  if (const auto ref = out.find("$ref"); ref != out.end()) {
    if (!ref->is_string()) refuse("'$ref' must be a string.");
    parts.push_back(resolve(ref->get<std::string>()));
    out.erase("$ref");
  }
  if (const auto all = out.find("allOf"); all != out.end()) {
    if (!all->is_array() || all->empty()) refuse("'allOf' must be a list of schemas.");
    for (const auto& part : *all) parts.push_back(part);
    out.erase("allOf");
  }
  for (const auto& part : parts) {
    out = merged(out, part, depth + 1);
    if (out.is_boolean()) return out;
  }
  return out;
}

bool is_annotation(std::string_view keyword) {
  constexpr std::array<std::string_view, 13> kNames{
      "title",     "description", "default", "example", "examples",    "deprecated",   "readOnly",
      "writeOnly", "$comment",    "$schema", "$defs",   "definitions", "discriminator"};
  return std::find(kNames.begin(), kNames.end(), keyword) != kNames.end();
}

const Json& SchemaMerger::resolve(const std::string& reference) const {
  if (!reference.starts_with('#')) refuse("'$ref' must begin with '#'.");
  try {
    const Json::json_pointer pointer(reference.substr(1));
    if (root_.contains(pointer)) return root_.at(pointer);
  } catch (const Json::exception&) {
  }
  refuse(fmt::format("'$ref' names '{}', which is not there.", reference));
}

}  // namespace flexllm::server::grammar
