#include "server/api/fields.h"

#include <fmt/format.h>

#include <cmath>
#include <utility>

#include "server/api/json.h"

namespace flexllm::server {

Fields::Fields(const nlohmann::json& object, std::string path)
    : object_(object), path_(std::move(path)) {
  if (!object_.is_object()) {
    error_ = invalid_request(
        path_,
        path_.empty() ? "The body must be a JSON object." : "'" + path_ + "' must be an object.",
        "invalid_type");
  }
}

std::string Fields::full_name(std::string_view name) const {
  return path_.empty() ? std::string(name) : path_ + "." + std::string(name);
}

const nlohmann::json* Fields::find(std::string_view name) {
  if (error_) return nullptr;
  known_.emplace(name);
  const auto member = object_.find(name);
  if (member == object_.end() || member->is_null()) return nullptr;
  return &*member;
}

void Fields::read(std::string_view name, bool& out) {
  const auto* member = find(name);
  if (member == nullptr) return;
  if (!member->is_boolean()) return fail(name, "must be true or false.");
  out = member->get<bool>();
}

void Fields::read(std::string_view name, std::string& out) {
  const auto* member = find(name);
  if (member == nullptr) return;
  if (!member->is_string()) return fail(name, "must be a string.");
  out = member->get<std::string>();
}

void Fields::read(std::string_view name, float& out, Bounds bounds) {
  const auto* member = find(name);
  if (member == nullptr) return;
  if (!member->is_number()) return fail(name, "must be a number.");
  const double number = member->get<double>();
  if (!(number >= bounds.low && number <= bounds.high)) {
    return fail(name, fmt::format("must be between {} and {}.", bounds.low, bounds.high));
  }
  out = static_cast<float>(number);
}

std::optional<int64_t> Fields::integer(std::string_view name, int64_t low, int64_t high) {
  const auto* member = find(name);
  if (member == nullptr) return std::nullopt;
  const auto number = integer_of(*member);
  if (number && *number >= low && *number <= high) return number;
  if (number || member->is_number_integer()) {
    fail(name, fmt::format("must be between {} and {}.", low, high));
  } else {
    fail(name, "must be an integer.");
  }
  return std::nullopt;
}

void Fields::fail(std::string_view name, std::string message) {
  const std::string full = full_name(name);
  fail(invalid_request(full, "'" + full + "' " + message));
}

void Fields::fail(ApiError error) {
  if (!error_) error_ = std::move(error);
}

void Fields::refuse(std::string_view name, std::string_view why) {
  if (find(name) == nullptr) return;
  const std::string full = full_name(name);
  fail(not_supported(full, fmt::format("'{}' is not supported: {}", full, why)));
}

std::optional<ApiError> Fields::finish() {
  if (error_) return error_;
  for (const auto& [name, value] : object_.items()) {
    if (known_.contains(name)) continue;
    return invalid_request(full_name(name), "Unknown field '" + full_name(name) + "'.",
                           "unknown_parameter");
  }
  return std::nullopt;
}

}  // namespace flexllm::server
