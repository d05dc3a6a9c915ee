#include "server/http/server.h"

#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <atomic>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/redirect_error.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/strand.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <future>
#include <mutex>
#include <thread>
#include <vector>

#include "server/http/connection.h"
#include "server/http/listener.h"
#include "server/http/tls.h"

namespace flexllm::server {
namespace asio = boost::asio;
using boost::system::error_code;

struct HttpServer::State {
  explicit State(uint32_t concurrency) : io(static_cast<int>(concurrency)) {}

  struct Listener {
    Acceptor acceptor;  // on a strand
    SocketFile file;    // of a Unix socket
    bool tls = false;
  };
  tl::expected<void, std::string> listen();
  asio::awaitable<void> accept(Listener& listener);
  void add(Socket socket, bool with_tls);
  void stop_accepting();
  template <class Action>
  void for_each(Action action);
  bool wait_until_closed(std::chrono::milliseconds limit) const;

  asio::io_context io;
  std::vector<std::unique_ptr<Listener>> listeners;
  std::atomic<std::shared_ptr<asio::ssl::context>> tls;  // null: in clear
  std::shared_ptr<ConnectionContext> context = std::make_shared<ConnectionContext>();
  uint16_t port = 0;
  std::mutex mutex;
  std::vector<std::weak_ptr<Connection>> connections;
  std::vector<std::thread> threads;
};

tl::expected<std::unique_ptr<HttpServer>, std::string> HttpServer::start(
    const HttpOptions& options, std::shared_ptr<HttpHandler> handler) {
  auto state = std::make_unique<State>(std::max(1u, options.threads));
  state->context->options = options;
  state->context->handler = std::move(handler);
  if (!options.access_log.empty()) {
    auto log = AccessLog::open(options.access_log);
    if (!log) return tl::unexpected(log.error());
    state->context->access_log = std::move(*log);
  }
  if (const auto listening = state->listen(); !listening) {
    return tl::unexpected(listening.error());
  }
  for (auto& listener : state->listeners) {
    asio::co_spawn(listener->acceptor.get_executor(), state->accept(*listener), asio::detached);
  }
  for (uint32_t i = 0; i < std::max(1u, options.threads); ++i) {
    state->threads.emplace_back([io = &state->io] { io->run(); });
  }
  return std::unique_ptr<HttpServer>(new HttpServer(std::move(state)));
}

tl::expected<void, std::string> HttpServer::State::listen() {
  const HttpOptions& options = context->options;
  const bool with_tls = !options.tls_certificate.empty() || !options.tls_key.empty();
  if (with_tls) {
    auto loaded = load_tls(options.tls_certificate, options.tls_key);
    if (!loaded) return tl::unexpected(loaded.error());
    tls = std::move(*loaded);
  }
  if (options.port) {
    auto acceptor = listen_tcp(asio::make_strand(io), options.host, *options.port);
    if (!acceptor) return tl::unexpected(acceptor.error());
    port = port_of(*acceptor);
    listeners.push_back(std::make_unique<Listener>(std::move(*acceptor), SocketFile(), with_tls));
  }
  if (!options.unix_socket.empty()) {
    auto made = listen_unix(asio::make_strand(io), options.unix_socket, options.unix_socket_mode);
    if (!made) return tl::unexpected(made.error());
    listeners.push_back(
        std::make_unique<Listener>(std::move(made->acceptor), std::move(made->file), false));
  }
  return {};
}

HttpServer::HttpServer(std::unique_ptr<State> state) : state_(std::move(state)) {}

HttpServer::~HttpServer() {
  state_->stop_accepting();
  state_->for_each([](Connection& connection) { connection.close(); });
  state_->wait_until_closed(std::chrono::seconds(5));
  state_->context->aside.join();
  state_->io.stop();
  for (auto& thread : state_->threads) thread.join();
}

uint16_t HttpServer::port() const { return state_->port; }

uint32_t HttpServer::connections() const { return state_->context->open; }

void HttpServer::finish(std::chrono::milliseconds limit) {
  state_->stop_accepting();
  state_->for_each([](Connection& connection) { connection.finish(); });
  state_->wait_until_closed(limit);
}

tl::expected<void, std::string> HttpServer::reload_tls() {
  if (!state_->tls.load()) return {};
  const HttpOptions& options = state_->context->options;
  auto loaded = load_tls(options.tls_certificate, options.tls_key);
  if (!loaded) return tl::unexpected(loaded.error());
  state_->tls = std::move(*loaded);
  return {};
}

tl::expected<void, std::string> HttpServer::reopen_access_log() {
  AccessLog* log = state_->context->access_log.get();
  return log == nullptr ? tl::expected<void, std::string>{} : log->reopen();
}

bool HttpServer::responds(std::chrono::milliseconds limit) {
  auto done = std::make_shared<std::promise<void>>();
  asio::post(state_->io, [done] { done->set_value(); });
  return done->get_future().wait_for(limit) == std::future_status::ready;
}

asio::awaitable<void> HttpServer::State::accept(Listener& listener) {
  Acceptor& acceptor = listener.acceptor;
  while (acceptor.is_open()) {
    error_code error;
    // Each connection has a strand of its own: its handlers never run at the same time.
    Socket socket(asio::make_strand(io));
    co_await acceptor.async_accept(socket, asio::redirect_error(asio::use_awaitable, error));
    if (!error) {
      add(std::move(socket), listener.tls);
    } else if (error != asio::error::operation_aborted) {
      // Out of descriptors, most likely: they come back when connections close.
      spdlog::warn("cannot accept a connection: {}", error.message());
      asio::steady_timer pause(acceptor.get_executor(), std::chrono::milliseconds(100));
      co_await pause.async_wait(asio::redirect_error(asio::use_awaitable, error));
    }
  }
}

void HttpServer::State::add(Socket socket, bool with_tls) {
  error_code ignored;
  if (const auto bytes = context->options.send_buffer_bytes; bytes > 0) {
    socket.set_option(asio::socket_base::send_buffer_size(static_cast<int>(bytes)), ignored);
  }
  const bool full = context->open >= context->options.max_connections;
  if (full && context->refusals >= context->options.max_refusals) return;  // closes it
  auto connection = std::make_shared<Connection>(std::move(socket), with_tls ? tls.load() : nullptr,
                                                 context, full ? context->refusals : context->open);
  {
    const std::lock_guard lock(mutex);
    std::erase_if(connections, [](const auto& weak) { return weak.expired(); });
    connections.push_back(connection);
  }
  if (full) {
    connection->start_refusing();
  } else {
    connection->start();
  }
}

void HttpServer::State::stop_accepting() {
  context->finishing = true;
  for (auto& listener : listeners) {
    asio::post(listener->acceptor.get_executor(), [acceptor = &listener->acceptor] {
      error_code ignored;
      acceptor->close(ignored);
    });
  }
}

template <class Action>
void HttpServer::State::for_each(Action action) {
  std::vector<std::shared_ptr<Connection>> open;
  {
    const std::lock_guard lock(mutex);
    for (const auto& weak : connections) {
      if (auto connection = weak.lock()) open.push_back(std::move(connection));
    }
  }
  for (const auto& connection : open) action(*connection);
}

bool HttpServer::State::wait_until_closed(std::chrono::milliseconds limit) const {
  const auto end = std::chrono::steady_clock::now() + limit;
  while (context->open > 0 || context->refusals > 0) {
    if (std::chrono::steady_clock::now() >= end) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  return true;
}

}  // namespace flexllm::server
