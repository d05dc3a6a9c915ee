// Reads the members of a JSON object that a client sent: each by name, with its type and bounds.
// The first mistake is kept, with the member's full name, and makes all later calls do nothing. A
// member that is null counts as absent. Used on the stack of one call.
#pragma once

#include <concepts>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <string>
#include <string_view>

#include "server/api/error.h"

namespace flexllm::server {

struct Bounds {
  double low = 0;
  double high = 0;
};

class Fields {
 public:
  // `path` names the object for error messages, "messages[0]"; empty: the body itself.
  Fields(const nlohmann::json& object, std::string path);

  // The member, or nullptr if absent or after a mistake.
  const nlohmann::json* find(std::string_view name);

  void read(std::string_view name, bool& out);
  void read(std::string_view name, std::string& out);
  // Bounds are inclusive.
  void read(std::string_view name, float& out, Bounds bounds);
  template <std::integral T>
  void read(std::string_view name, T& out, int64_t low, int64_t high) {
    if (const auto number = integer(name, low, high)) out = static_cast<T>(*number);
  }
  template <std::integral T>
  void read(std::string_view name, std::optional<T>& out, int64_t low, int64_t high) {
    if (const auto number = integer(name, low, high)) out = static_cast<T>(*number);
  }

  void fail(std::string_view name, std::string message);  // 400
  void fail(ApiError error);
  // A member that we know and do not serve: 501 if it is there at all.
  void refuse(std::string_view name, std::string_view why);

  bool ok() const { return !error_; }
  std::string full_name(std::string_view name) const;
  // The first mistake; if there was none, a member that no call has asked for.
  std::optional<ApiError> finish();

 private:
  std::optional<int64_t> integer(std::string_view name, int64_t low, int64_t high);

  const nlohmann::json& object_;
  const std::string path_;
  std::set<std::string, std::less<>> known_;
  std::optional<ApiError> error_;
};

}  // namespace flexllm::server
