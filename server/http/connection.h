// One client's connection: a coroutine on a strand that reads requests and answers them in order.
// It owns its socket and lives until the socket is closed. Used by server.cpp only.
#pragma once

#include <atomic>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/generic/stream_protocol.hpp>
#include <boost/asio/ssl/context.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/thread_pool.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/http/parser.hpp>
#include <boost/beast/http/string_body.hpp>
#include <chrono>
#include <memory>
#include <string>
#include <string_view>

#include "server/http/access_log.h"
#include "server/http/server.h"
#include "server/http/stream.h"
#include "server/http/types.h"

namespace flexllm::server {

// What the connections of a server share.
struct ConnectionContext {
  HttpOptions options;
  std::shared_ptr<HttpHandler> handler;
  std::unique_ptr<AccessLog> access_log;  // null: none
  // Works on large bodies, whose text takes long to read, so that they hold nobody up.
  boost::asio::thread_pool aside{2};
  std::atomic<uint32_t> open{0};       // connections that are served
  std::atomic<uint32_t> refusals{0};   // connections that are told that there are too many
  std::atomic<bool> finishing{false};  // answer what is under way, then close
};

// TCP or Unix.
using Socket = boost::asio::generic::stream_protocol::socket;

class Connection : public std::enable_shared_from_this<Connection> {
 public:
  // The socket's executor must be a strand. Without `tls` it speaks in clear. `count`, of the
  // context, has it while it lives.
  Connection(Socket socket, const std::shared_ptr<boost::asio::ssl::context>& tls,
             std::shared_ptr<ConnectionContext> context, std::atomic<uint32_t>& count);
  ~Connection();

  void start();
  // Says that there are too many connections, and closes.
  void start_refusing();
  // Any thread: closes it now if it waits for a request, otherwise after the answer.
  void finish();
  // Any thread: closes it now.
  void close();

 private:
  template <class T>
  using Awaitable = boost::asio::awaitable<T>;
  using Parser = boost::beast::http::request_parser<boost::beast::http::string_body>;
  using Milliseconds = std::chrono::milliseconds;

  // What is under TLS shakes hands first. False: it did not come about.
  Awaitable<bool> greet();
  Awaitable<void> run();
  Awaitable<void> refuse();
  // One request and its answer. False: the connection is to be closed.
  Awaitable<bool> serve_one();
  Awaitable<bool> reject(unsigned status, std::string message);
  Awaitable<bool> follow(std::unique_ptr<PendingReply> pending);

  Awaitable<bool> write_reply(HttpReply reply, std::optional<TokenCounts> tokens = std::nullopt);
  Awaitable<bool> write_events(std::string events, bool& begun, bool last);
  Awaitable<bool> write(std::string bytes);
  Awaitable<void> end_sending();
  Awaitable<void> linger();
  // Until wake() or for `time`. True: woken.
  Awaitable<bool> wait(Milliseconds time);
  void wake();

  // While an answer is made, what the client sends is read ahead, so that its leaving is seen.
  void watch();
  Awaitable<void> stop_watching();
  void limit_time(Milliseconds time);  // closes the socket then; 0: never
  void set_timer();
  void close_now();
  void read_head(const Parser& parser);
  std::string head_text(const HttpReply& reply) const;
  Awaitable<Answer> handle(HttpRequest request);
  void log(unsigned status, std::optional<TokenCounts> tokens = std::nullopt) const;

  Stream<Socket> stream_;
  Socket& socket_;  // of stream_
  const std::shared_ptr<ConnectionContext> context_;
  std::atomic<uint32_t>& count_;
  boost::beast::flat_buffer buffer_;
  boost::asio::steady_timer wake_;     // ends wait() early
  boost::asio::steady_timer time_up_;  // see limit_time()
  static constexpr auto kNever = std::chrono::steady_clock::time_point::max();
  std::chrono::steady_clock::time_point limit_ = kNever;
  std::chrono::steady_clock::time_point time_up_set_ = kNever;  // when time_up_ goes off
  bool local_ = false;                                          // a Unix socket
  bool woken_ = false;
  bool in_request_ = false;  // from the first byte of a request to the end of its answer
  bool watching_ = false;
  bool watch_ends_ = false;
  bool peer_left_ = false;

  // Of the request under way.
  HttpRequest head_;    // without its body
  std::string target_;  // as sent, without the query, for the log
  uint64_t sent_ = 0;   // bytes
  bool http_1_0_ = false;
  bool keep_alive_ = true;
  std::chrono::steady_clock::time_point begun_;
};

}  // namespace flexllm::server
