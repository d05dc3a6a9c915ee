// HTTP/1.1 on a TCP port, in clear or under TLS, and on a Unix domain socket: accepts connections,
// reads requests within limits, writes answers, whole or as server-sent events. What requests mean
// is the handler's business. It has threads of its own; its members are called by whoever owns it.
#pragma once

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <tl/expected.hpp>

#include "server/http/types.h"

namespace flexllm::server {

struct HttpOptions {
  std::string host = "127.0.0.1";         // address to bind
  std::optional<uint16_t> port = 8080;    // 0: any free one; absent: no TCP
  std::filesystem::path tls_certificate;  // PEM; with the key it makes the port speak TLS
  std::filesystem::path tls_key;          // PEM
  std::filesystem::path unix_socket;      // also listen there; empty: do not
  uint32_t unix_socket_mode = 0600;       // who may connect to it
  uint32_t threads = 2;
  uint32_t max_connections = 2048;        // further ones get 503
  uint32_t max_refusals = 64;             // at once; still further ones are just closed
  uint32_t max_header_bytes = 16u << 10;  // 431 beyond
  uint64_t max_body_bytes = 8u << 20;     // 413 beyond
  std::chrono::milliseconds handshake_timeout{10000};  // of TLS
  std::chrono::milliseconds idle_timeout{60000};       // for the next request's head to arrive
  std::chrono::milliseconds body_timeout{30000};       // for its body
  std::chrono::milliseconds write_timeout{30000};      // for the reader to take what we wrote
  std::chrono::milliseconds keep_alive{10000};  // silence after which a stream gets a comment
  std::filesystem::path access_log;  // a JSON line for each answer; "-": stderr; empty: none
  uint32_t send_buffer_bytes = 0;    // of each socket; 0: the system's default
};

class HttpServer {
 public:
  // Binds and begins to answer. The error says what could not be bound, or what is wrong with the
  // certificate or the access log.
  static tl::expected<std::unique_ptr<HttpServer>, std::string> start(
      const HttpOptions& options, std::shared_ptr<HttpHandler> handler);
  // Closes what is still open and joins the threads.
  ~HttpServer();
  HttpServer(const HttpServer&) = delete;
  HttpServer& operator=(const HttpServer&) = delete;

  uint16_t port() const;  // 0: no TCP
  // Reads certificate and key again, for the connections to come. If they are not sound the old
  // ones stay, and the error says why.
  tl::expected<void, std::string> reload_tls();
  uint32_t connections() const;  // that are served; being refused does not count
  // Opens the access log anew, after it was moved away. If that fails the old one is kept.
  tl::expected<void, std::string> reopen_access_log();
  // Whether a thread that serves does some work within `limit`: false if all hang.
  bool responds(std::chrono::milliseconds limit);
  // Accepts nothing more, closes idle connections, and returns when answers under way are written,
  // or after `limit`.
  void finish(std::chrono::milliseconds limit);

 private:
  struct State;
  explicit HttpServer(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace flexllm::server
