#include "formats/json_text.h"

#include <cmath>
#include <limits>
#include <unordered_set>
#include <vector>

#include "formats/error.h"

namespace flexllm::formats {
namespace {

// Brackets outside strings, counted before anything is built.
void check_depth(const std::filesystem::path& file, std::string_view place, std::string_view text) {
  int depth = 0;
  bool in_string = false;
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (in_string) {
      if (c == '\\') ++i;
      if (c == '"') in_string = false;
    } else if (c == '"') {
      in_string = true;
    } else if (c == '{' || c == '[') {
      if (++depth > kMaxJsonDepth) {
        throw Error(file, std::string(place) + ", byte " + std::to_string(i),
                    "JSON is nested deeper than " + std::to_string(kMaxJsonDepth) + " levels");
      }
    } else if (c == '}' || c == ']') {
      --depth;
    }
  }
}

}  // namespace

Json parse_json(const std::filesystem::path& file, std::string_view place, std::string_view text,
                uint64_t max_bytes) {
  if (text.size() > max_bytes) {
    throw Error(file, place,
                "JSON of " + std::to_string(text.size()) + " bytes; at most " +
                    std::to_string(max_bytes) + " are accepted");
  }
  check_depth(file, place, text);
  std::vector<std::unordered_set<std::string>> keys;  // of the open objects
  const auto refuse_duplicates = [&](int, Json::parse_event_t event, Json& parsed) {
    if (event == Json::parse_event_t::object_start) {
      keys.emplace_back();
    } else if (event == Json::parse_event_t::object_end) {
      keys.pop_back();
    } else if (event == Json::parse_event_t::key &&
               !keys.back().insert(parsed.get_ref<const std::string&>()).second) {
      throw Error(file, place,
                  "key '" + parsed.get_ref<const std::string&>() + "' stands twice in one object");
    }
    return true;
  };
  try {
    return Json::parse(text, refuse_duplicates);
  } catch (const Json::exception& error) {
    throw Error(file, place, std::string("expected JSON: ") + error.what());
  }
}

std::optional<uint32_t> as_u32(const Json& json) {
  if (!json.is_number_unsigned()) return std::nullopt;
  const auto value = json.get<uint64_t>();
  if (value > std::numeric_limits<uint32_t>::max()) return std::nullopt;
  return static_cast<uint32_t>(value);
}

JsonObject::JsonObject(const std::filesystem::path& file, std::string key, const Json& json)
    : file_(file), prefix_(std::move(key)), json_(json) {
  if (!json.is_object()) {
    throw Error(file_, prefix_.empty() ? "the document" : "key '" + prefix_ + "'",
                "expected a JSON object");
  }
  if (!prefix_.empty()) prefix_ += '.';
}

void JsonObject::fail(std::string_view key, std::string_view what) const {
  throw Error(file_, "key '" + path_of(key) + "'", what);
}

const Json* JsonObject::find(std::string_view key) const {
  const auto found = json_.find(key);
  return found == json_.end() || found->is_null() ? nullptr : &*found;
}

std::optional<uint32_t> JsonObject::find_u32(std::string_view key) const {
  const Json* value = find(key);
  if (value == nullptr) return std::nullopt;
  const auto integer = as_u32(*value);
  if (!integer) fail(key, "expected an integer from 0 to 2^32 - 1");
  return integer;
}

std::optional<double> JsonObject::find_number(std::string_view key) const {
  const Json* value = find(key);
  if (value == nullptr) return std::nullopt;
  if (!value->is_number() || !std::isfinite(value->get<double>())) {
    fail(key, "expected a finite number");
  }
  return value->get<double>();
}

std::optional<bool> JsonObject::find_bool(std::string_view key) const {
  const Json* value = find(key);
  if (value == nullptr) return std::nullopt;
  if (!value->is_boolean()) fail(key, "expected true or false");
  return value->get<bool>();
}

std::optional<std::string> JsonObject::find_string(std::string_view key) const {
  const Json* value = find(key);
  if (value == nullptr) return std::nullopt;
  if (!value->is_string()) fail(key, "expected a string");
  return value->get<std::string>();
}

std::optional<JsonObject> JsonObject::find_object(std::string_view key) const {
  const Json* value = find(key);
  if (value == nullptr) return std::nullopt;
  return JsonObject(file_, path_of(key), *value);
}

const Json* JsonObject::find_array(std::string_view key) const {
  const Json* value = find(key);
  if (value != nullptr && !value->is_array()) fail(key, "expected an array");
  return value;
}

uint32_t JsonObject::u32(std::string_view key) const {
  const auto value = find_u32(key);
  if (!value) fail(key, "it is missing");
  return *value;
}

double JsonObject::number(std::string_view key) const {
  const auto value = find_number(key);
  if (!value) fail(key, "it is missing");
  return *value;
}

std::string JsonObject::string(std::string_view key) const {
  auto value = find_string(key);
  if (!value) fail(key, "it is missing");
  return *std::move(value);
}

JsonObject JsonObject::object(std::string_view key) const {
  auto value = find_object(key);
  if (!value) fail(key, "it is missing");
  return *std::move(value);
}

}  // namespace flexllm::formats
