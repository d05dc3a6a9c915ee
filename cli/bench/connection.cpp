#include "cli/bench/connection.h"

#include <array>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/redirect_error.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/beast/http/buffer_body.hpp>
#include <boost/beast/http/parser.hpp>
#include <boost/beast/http/read.hpp>
#include <boost/beast/http/string_body.hpp>
#include <boost/beast/http/write.hpp>
#include <limits>
#include <utility>

namespace flexllm::cli::bench {
namespace asio = boost::asio;
namespace beast = boost::beast;
namespace http = boost::beast::http;
using boost::system::error_code;

namespace {

// For the end of the body after [DONE], without which the connection cannot be used again.
constexpr std::chrono::milliseconds kForTheEnd{500};

asio::redirect_error_t<asio::use_awaitable_t<>> into(error_code& error) {
  return asio::redirect_error(asio::use_awaitable, error);
}

double seconds_since(Clock::time_point begin) {
  return std::chrono::duration<double>(Clock::now() - begin).count();
}

bool is_malformed(const error_code& error) {
  return error.category() == http::make_error_code(http::error::bad_version).category() &&
         error != http::error::end_of_stream && error != http::error::partial_message;
}

}  // namespace

struct ConnectionPool::Request {
  http::request<http::string_body> message;
  Clock::time_point begin;
  Clock::time_point deadline;
};

ConnectionPool::ConnectionPool(asio::any_io_executor executor, const ServerUrl& url,
                               std::string api_key, std::vector<cli::Endpoint> places)
    : executor_(std::move(executor)),
      url_(url),
      authorization_(api_key.empty() ? "" : "Bearer " + api_key),
      places_(std::move(places)) {}

void ConnectionPool::close_all() {
  closed_ = true;
  for (Connection* connection : busy_) connection->stream.socket().close();
}

asio::awaitable<void> ConnectionPool::exchange(std::string path, std::string body,
                                               Clock::time_point begin, Clock::time_point deadline,
                                               AnswerReader& reader) {
  Request request{{http::verb::post, url_.base + path, 11}, begin, deadline};
  request.message.set(http::field::host, url_.authority());
  request.message.set(http::field::content_type, "application/json");
  request.message.set(http::field::accept, "text/event-stream");
  if (!authorization_.empty()) request.message.set(http::field::authorization, authorization_);
  request.message.body() = std::move(body);
  request.message.prepare_payload();

  Step step = Step::stale;
  while (step == Step::stale && !closed_) {
    std::unique_ptr<Connection> connection;
    const bool reused = !idle_.empty();
    if (reused) {
      connection = std::move(idle_.back());
      idle_.pop_back();
    } else {
      connection = std::make_unique<Connection>(executor_);
    }
    busy_.insert(connection.get());
    step = co_await attempt(*connection, reused, request, reader);
    busy_.erase(connection.get());
    if (connection->stream.socket().socket().is_open()) idle_.push_back(std::move(connection));
  }
}

// Leaves the connection open if it can be used again. Stale: the server had closed it before it
// saw the request.
asio::awaitable<ConnectionPool::Step> ConnectionPool::attempt(Connection& connection, bool reused,
                                                              const Request& request,
                                                              AnswerReader& reader) {
  auto& stream = connection.stream;
  LimitedSocket& socket = stream.socket();
  beast::flat_buffer& buffer = connection.buffer;
  error_code error;
  const auto failed = [&](const char* kind, const std::string& message) {
    socket.close();
    const bool late = error == beast::error::timeout;
    reader.fail(late ? "timeout" : kind, late ? "no end of the answer in time" : message,
                seconds_since(request.begin));
    return Step::ended;
  };
  socket.expires_at(request.deadline);
  if (!reused) {
    co_await socket.async_connect(places_, into(error));
    if (error) co_return failed("connect", error.message());
    socket.socket().set_option(asio::ip::tcp::no_delay(true), error);  // a Unix socket has none
    if (url_.tls) {
      auto& tls = stream.use_tls(*url_.tls);
      expect_server(tls.native_handle(), url_);
      co_await tls.async_handshake(asio::ssl::stream_base::client, into(error));
      if (error) co_return failed("connect", handshake_failure(tls.native_handle(), error));
    }
  }
  co_await http::async_write(stream, request.message, into(error));
  if (error && reused && error != beast::error::timeout) {
    socket.close();
    co_return Step::stale;
  }
  // A server that has refused already may have stopped reading; its answer is worth having.
  const bool written = !error;

  http::response_parser<http::buffer_body> parser;
  parser.body_limit(std::numeric_limits<uint64_t>::max());
  if (error != beast::error::timeout) {
    co_await http::async_read_header(stream, buffer, parser, into(error));
  }
  if (error) {
    if (reused && !parser.got_some() && error != beast::error::timeout) {
      socket.close();
      co_return Step::stale;
    }
    if (is_malformed(error)) co_return failed("malformed", "not HTTP: " + error.message());
    co_return failed("cut off", "closed before an answer: " + error.message());
  }
  reader.head(parser.get().result_int(), parser.get()[http::field::content_type]);

  std::array<char, 16384> bytes;
  bool wanted = true;
  while (!error && !parser.is_done()) {
    parser.get().body().data = bytes.data();
    parser.get().body().size = bytes.size();
    co_await http::async_read_some(stream, buffer, parser, into(error));
    if (error == http::error::need_buffer) error = {};
    const size_t got = bytes.size() - parser.get().body().size;
    if (got == 0 || !wanted) continue;
    wanted = reader.take({bytes.data(), got}, seconds_since(request.begin));
    if (!wanted) socket.expires_after(kForTheEnd);
  }
  if (wanted && error == beast::error::timeout) co_return failed("timeout", "");
  if (wanted && is_malformed(error)) {
    co_return failed("malformed", "not HTTP: " + error.message());
  }
  reader.finish(seconds_since(request.begin));
  const bool reusable = !error && written && parser.keep_alive() && buffer.size() == 0;
  if (!reusable) socket.close();
  socket.expires_never();
  co_return Step::ended;
}

}  // namespace flexllm::cli::bench
