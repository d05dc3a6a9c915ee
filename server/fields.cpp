#include "server/fields.h"

#include <fmt/format.h>

#include <cmath>
#include <utility>

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

void Fields::read(std::string_view name, float& out, double low, double high) {
  const auto* member = find(name);
  if (member == nullptr) return;
  if (!member->is_number()) return fail(name, "must be a number.");
  const double number = member->get<double>();
  if (!(number >= low && number <= high)) {
    return fail(name, fmt::format("must be between {} and {}.", low, high));
  }
  out = static_cast<float>(number);
}

std::optional<int64_t> Fields::integer(std::string_view name, int64_t low, int64_t high) {
  const auto* member = find(name);
  if (member == nullptr) return std::nullopt;
  if (!member->is_number_integer()) {
    fail(name, "must be an integer.");
    return std::nullopt;
  }
  const bool too_large =
      member->is_number_unsigned() && !std::in_range<int64_t>(member->get<uint64_t>());
  const int64_t number = too_large ? 0 : member->get<int64_t>();
  if (too_large || number < low || number > high) {
    fail(name, fmt::format("must be between {} and {}.", low, high));
    return std::nullopt;
  }
  return number;
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
