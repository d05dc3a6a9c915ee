// One client's connection: a coroutine on a strand that reads requests and answers them in order.
// It owns its socket and lives until the socket is closed. Used by server.cpp only.
#pragma once

#include <atomic>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/http/parser.hpp>
#include <boost/beast/http/string_body.hpp>
#include <chrono>
#include <memory>
#include <string>
#include <string_view>

#include "server/http/server.h"
#include "server/http/types.h"

namespace flexllm::server {

// What the connections of a server share.
struct ConnectionContext {
  HttpOptions options;
  std::shared_ptr<HttpHandler> handler;
  std::atomic<uint32_t> open{0};       // connections that are served
  std::atomic<uint32_t> refusals{0};   // connections that are told that there are too many
  std::atomic<bool> finishing{false};  // answer what is under way, then close
};

class Connection : public std::enable_shared_from_this<Connection> {
 public:
  // The socket's executor must be a strand. `count`, of the context, has it while it lives.
  Connection(boost::asio::ip::tcp::socket socket, std::shared_ptr<ConnectionContext> context,
             std::atomic<uint32_t>& count);
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

  Awaitable<void> run();
  Awaitable<void> refuse();
  // One request and its answer. False: the connection is to be closed.
  Awaitable<bool> serve_one();
  Awaitable<bool> reject(unsigned status, std::string message);
  Awaitable<bool> follow(std::unique_ptr<PendingReply> pending);

  Awaitable<bool> write_reply(HttpReply reply);
  Awaitable<bool> write_events(std::string events, bool& begun);
  Awaitable<bool> write(std::string bytes);
  Awaitable<void> linger();
  // Until wake() or for `time`. True: woken.
  Awaitable<bool> wait(Milliseconds time);
  void wake();

  // While an answer is made, what the client sends is read ahead, so that its leaving is seen.
  void watch();
  Awaitable<void> stop_watching();
  void limit_time(Milliseconds time);  // closes the socket then; 0: never
  void close_now();
  void read_head(const Parser& parser);
  std::string head_text(const HttpReply& reply) const;
  void log(unsigned status) const;

  boost::asio::ip::tcp::socket socket_;
  const std::shared_ptr<ConnectionContext> context_;
  std::atomic<uint32_t>& count_;
  boost::beast::flat_buffer buffer_;
  boost::asio::steady_timer wake_;     // ends wait() early
  boost::asio::steady_timer time_up_;  // see limit_time()
  bool woken_ = false;
  bool in_request_ = false;  // from the first byte of a request to the end of its answer
  bool watching_ = false;
  bool watch_ends_ = false;
  bool peer_left_ = false;

  // Of the request under way.
  HttpRequest head_;    // without its body
  std::string target_;  // as sent, without the query, for the log
  bool http_1_0_ = false;
  bool keep_alive_ = true;
  std::chrono::steady_clock::time_point begun_;
};

}  // namespace flexllm::server
