#include "server/http/server.h"

#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/redirect_error.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/strand.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <mutex>
#include <thread>
#include <vector>

#include "server/http/connection.h"

namespace flexllm::server {
namespace asio = boost::asio;
using asio::ip::tcp;
using boost::system::error_code;

struct HttpServer::State {
  explicit State(uint32_t concurrency)
      : io(static_cast<int>(concurrency)), acceptor(asio::make_strand(io)) {}

  asio::awaitable<void> accept();
  void add(tcp::socket socket);
  void stop_accepting();
  template <class Action>
  void for_each(Action action);
  bool wait_until_closed(std::chrono::milliseconds limit) const;

  asio::io_context io;
  tcp::acceptor acceptor;  // on a strand
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
  error_code error;
  const auto address = asio::ip::make_address(options.host, error);
  if (error) return tl::unexpected("'" + options.host + "' is not an address to bind");
  const tcp::endpoint endpoint(address, options.port);
  auto& acceptor = state->acceptor;
  acceptor.open(endpoint.protocol(), error);
  if (!error) acceptor.set_option(tcp::acceptor::reuse_address(true), error);
  if (!error) acceptor.bind(endpoint, error);
  if (!error) acceptor.listen(asio::socket_base::max_listen_connections, error);
  if (error) {
    return tl::unexpected(
        fmt::format("cannot listen on {}:{}: {}", options.host, options.port, error.message()));
  }
  state->port = acceptor.local_endpoint().port();
  asio::co_spawn(acceptor.get_executor(), state->accept(), asio::detached);
  for (uint32_t i = 0; i < std::max(1u, options.threads); ++i) {
    state->threads.emplace_back([io = &state->io] { io->run(); });
  }
  return std::unique_ptr<HttpServer>(new HttpServer(std::move(state)));
}

HttpServer::HttpServer(std::unique_ptr<State> state) : state_(std::move(state)) {}

HttpServer::~HttpServer() {
  state_->stop_accepting();
  state_->for_each([](Connection& connection) { connection.close(); });
  state_->wait_until_closed(std::chrono::seconds(5));
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

asio::awaitable<void> HttpServer::State::accept() {
  while (acceptor.is_open()) {
    error_code error;
    // Each connection has a strand of its own: its handlers never run at the same time.
    tcp::socket socket(asio::make_strand(io));
    co_await acceptor.async_accept(socket, asio::redirect_error(asio::use_awaitable, error));
    if (!error) {
      add(std::move(socket));
    } else if (error != asio::error::operation_aborted) {
      // Out of descriptors, most likely: they come back when connections close.
      spdlog::warn("cannot accept a connection: {}", error.message());
      asio::steady_timer pause(acceptor.get_executor(), std::chrono::milliseconds(100));
      co_await pause.async_wait(asio::redirect_error(asio::use_awaitable, error));
    }
  }
}

void HttpServer::State::add(tcp::socket socket) {
  error_code ignored;
  if (const auto bytes = context->options.send_buffer_bytes; bytes > 0) {
    socket.set_option(asio::socket_base::send_buffer_size(static_cast<int>(bytes)), ignored);
  }
  const bool full = context->open >= context->options.max_connections;
  if (full && context->refusals >= context->options.max_refusals) return;  // closes it
  auto connection = std::make_shared<Connection>(std::move(socket), context,
                                                 full ? context->refusals : context->open);
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
  asio::post(acceptor.get_executor(), [this] {
    error_code ignored;
    acceptor.close(ignored);
  });
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
