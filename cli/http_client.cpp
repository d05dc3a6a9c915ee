#include "cli/http_client.h"

#include <sys/socket.h>

#include <array>
#include <boost/asio/connect.hpp>
#include <boost/asio/generic/stream_protocol.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/http/buffer_body.hpp>
#include <boost/beast/http/parser.hpp>
#include <boost/beast/http/read.hpp>
#include <boost/beast/http/string_body.hpp>
#include <boost/beast/http/write.hpp>
#include <limits>

#include "cli/sse_reader.h"
#include "server/http/stream.h"

namespace flexllm::cli {
namespace {

namespace asio = boost::asio;
namespace http = boost::beast::http;
using boost::system::error_code;
using nlohmann::json;

// What a server's error body says, or its status.
std::string error_message(int status, const std::string& body) {
  const json parsed = json::parse(body, nullptr, false);
  if (parsed.is_object() && parsed.contains("error") && parsed["error"].is_object()) {
    return parsed["error"].value("message", "HTTP status " + std::to_string(status));
  }
  return "the server answered with HTTP status " + std::to_string(status);
}

}  // namespace

void HttpClient::interrupt() noexcept {
  interrupted_ = true;
  const int socket = socket_;
  if (socket >= 0) ::shutdown(socket, SHUT_RDWR);
}

// Calls `take` with the status and each piece of the body until it returns false.
tl::expected<void, ClientError> HttpClient::exchange(
    const std::string& method, const std::string& path, const std::string& body,
    const std::function<bool(int, std::string_view)>& take) {
  using Kind = ClientError::Kind;
  auto failed = [this](Kind kind, const std::string& message) {
    return tl::unexpected(ClientError{interrupted_ ? Kind::interrupted : kind, message});
  };
  asio::io_context io;
  error_code error;
  const auto places = places_of(url_, io.get_executor());
  if (!places) return failed(Kind::unreachable, places.error());
  server::Stream stream(asio::generic::stream_protocol::socket{io});
  auto& socket = stream.socket();
  asio::connect(socket, *places, error);
  if (error) return failed(Kind::unreachable, error.message());
  // The number is good for as long as this function runs.
  socket_ = socket.native_handle();
  struct Forget {
    std::atomic<int>& socket;
    ~Forget() { socket = -1; }
  } forget{socket_};
  if (interrupted_) return failed(Kind::interrupted, "");
  if (url_.tls) {
    auto& tls = stream.use_tls(*url_.tls);
    expect_server(tls.native_handle(), url_);
    tls.handshake(asio::ssl::stream_base::client, error);
    if (error) return failed(Kind::broken, handshake_failure(tls.native_handle(), error));
  }

  http::request<http::string_body> request(http::string_to_verb(method), url_.base + path, 11);
  request.set(http::field::host, url_.authority());
  if (!key_.empty()) request.set(http::field::authorization, "Bearer " + key_);
  if (!body.empty()) request.set(http::field::content_type, "application/json");
  request.body() = body;
  request.prepare_payload();
  http::write(stream, request, error);
  if (error) return failed(Kind::broken, error.message());

  boost::beast::flat_buffer buffer;
  http::response_parser<http::buffer_body> parser;
  parser.body_limit(std::numeric_limits<uint64_t>::max());
  http::read_header(stream, buffer, parser, error);
  std::array<char, 16384> bytes;
  while (!error && !parser.is_done()) {
    parser.get().body().data = bytes.data();
    parser.get().body().size = bytes.size();
    http::read_some(stream, buffer, parser, error);
    if (error == http::error::need_buffer) error = {};
    const size_t got = bytes.size() - parser.get().body().size;
    if (got > 0 && !take(parser.get().result_int() & 0xFFFF, {bytes.data(), got})) return {};
  }
  if (interrupted_ || error) return failed(Kind::broken, error.message());
  return {};
}

tl::expected<json, ClientError> HttpClient::get(const std::string& path) {
  std::string body;
  int status = 0;
  const auto done = exchange("GET", path, "", [&](int code, std::string_view piece) {
    status = code;
    body += piece;
    return true;
  });
  if (!done) return tl::unexpected(done.error());
  if (status != 200) {
    return tl::unexpected(ClientError{ClientError::Kind::refused, error_message(status, body)});
  }
  json parsed = json::parse(body, nullptr, false);
  if (parsed.is_discarded()) {
    return tl::unexpected(ClientError{ClientError::Kind::broken, "the answer is not JSON"});
  }
  return parsed;
}

tl::expected<void, ClientError> HttpClient::stream(
    const std::string& path, const json& body, const std::function<void(const json&)>& on_event) {
  using Kind = ClientError::Kind;
  std::string refusal;
  int status = 0;
  bool done = false;
  std::string failure;
  SseReader reader;
  // What was typed need not be UTF-8.
  const std::string text = body.dump(-1, ' ', false, json::error_handler_t::replace);
  const auto end = exchange("POST", path, text, [&](int code, std::string_view piece) {
    status = code;
    if (status != 200) {
      refusal += piece;
      return true;
    }
    for (const auto& data : reader.feed(piece)) {
      if (data == "[DONE]") {
        done = true;
        return false;
      }
      const json event = json::parse(data, nullptr, false);
      if (event.is_object() && event.contains("error")) {
        failure = error_message(status, data);
        return false;
      }
      if (event.is_object()) on_event(event);
    }
    return true;
  });
  if (!end) return end;
  if (status != 200)
    return tl::unexpected(ClientError{Kind::refused, error_message(status, refusal)});
  if (!failure.empty()) return tl::unexpected(ClientError{Kind::refused, failure});
  if (!done) return tl::unexpected(ClientError{Kind::broken, "the answer was cut off"});
  return {};
}

}  // namespace flexllm::cli
