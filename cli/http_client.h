// A client of one server: HTTP/1.1, one request at a time, answers read as they arrive. Used by
// one thread; interrupt() may be called from a signal handler.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <tl/expected.hpp>

#include "cli/server_url.h"

namespace flexllm::cli {

struct ClientError {
  enum class Kind { unreachable, refused, broken, interrupted };
  Kind kind = Kind::broken;
  std::string message;
};

class HttpClient {
 public:
  HttpClient(ServerUrl url, std::string api_key) : url_(std::move(url)), key_(std::move(api_key)) {}

  tl::expected<nlohmann::json, ClientError> get(const std::string& path);
  // Posts `body` and calls `on_event` with each event of the answer until [DONE].
  tl::expected<void, ClientError> stream(
      const std::string& path, const nlohmann::json& body,
      const std::function<void(const nlohmann::json&)>& on_event);

  // Ends the request under way by closing its connection, and every later one until
  // forget_interrupt(), so that it may also come just before a request. Async-signal-safe.
  void interrupt() noexcept;
  void forget_interrupt() noexcept { interrupted_ = false; }

 private:
  tl::expected<void, ClientError> exchange(const std::string& method, const std::string& path,
                                           const std::string& body,
                                           const std::function<bool(int, std::string_view)>& take);

  const ServerUrl url_;
  const std::string key_;
  std::atomic<int> socket_{-1};
  std::atomic<bool> interrupted_{false};
};

}  // namespace flexllm::cli
