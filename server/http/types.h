// What passes between sockets and the service: a request that has arrived whole, and an answer that
// is ready or still being made. No sockets here, so that both sides are tested without the other.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

namespace flexllm::server {

struct HttpRequest {
  std::string method;
  std::string path;  // without the query
  std::string content_type;
  std::string authorization;
  std::string origin;             // of the page that asks, set by browsers
  std::string host;               // that the client believes to speak to
  std::string if_none_match;      // ETags that the client has
  std::string requested_headers;  // of a preflight: what the page wants to send
  bool local = false;             // came through a Unix socket
  // Of the API key that it brought, by refuse(): its place in the list, from 1; 0: none.
  uint32_t key = 0;
  std::string id;  // x-request-id: the client's if it sent a sound one, otherwise ours
  std::string body;
};

struct HttpReply {
  unsigned status = 200;
  std::string body;
  std::string content_type = "application/json";
  std::vector<std::pair<std::string, std::string>> headers;
};

struct TokenCounts {
  uint64_t prompt = 0;
  uint64_t completion = 0;
};

// An answer in the making. All members are called by one connection, one at a time; destroying it
// gives up what has not been read.
class PendingReply {
 public:
  virtual ~PendingReply() = default;

  // `wake` is called whenever poll() may have more, from any thread.
  virtual void on_ready(std::function<void()> wake) = 0;

  struct Progress {
    std::optional<HttpReply> reply;  // the whole answer; then nothing was or will be streamed
    std::string events;              // more of a text/event-stream
    bool done = false;
  };
  // What has become ready since the last call. Never blocks.
  virtual Progress poll() = 0;
  // Nothing has been ready for a while: a comment that keeps an event stream's connection alive and
  // begins it; empty if the answer is not a stream.
  virtual std::string keep_alive() = 0;
  // What was counted, once poll() has said that all is done; for the log.
  virtual std::optional<TokenCounts> tokens() const = 0;
};

using Answer = std::variant<HttpReply, std::unique_ptr<PendingReply>>;

// Called by many connections at once.
class HttpHandler {
 public:
  virtual ~HttpHandler() = default;

  // Decides on the head alone, before any of the body is read, and notes whose key it brought.
  // Nothing: the body is wanted.
  virtual std::optional<HttpReply> refuse(HttpRequest& head) = 0;
  virtual Answer handle(HttpRequest request) = 0;
  // Headers that every reply to `request` carries.
  virtual std::vector<std::pair<std::string, std::string>> common_headers(
      const HttpRequest& request) = 0;
  // What the socket side itself answers with: 400, 408, 413, 431 or 503.
  virtual HttpReply error(unsigned status, const std::string& message) = 0;
};

}  // namespace flexllm::server
