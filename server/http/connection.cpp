#include "server/http/connection.h"

#include <fmt/format.h>
#include <openssl/rand.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <array>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/redirect_error.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/asio/write.hpp>
#include <boost/beast/http/error.hpp>
#include <boost/beast/http/read.hpp>
#include <boost/beast/http/rfc7230.hpp>
#include <boost/beast/http/status.hpp>

namespace flexllm::server {
namespace {

namespace asio = boost::asio;
namespace http = boost::beast::http;
using boost::beast::iequals;
using boost::system::error_code;

constexpr size_t kReadAhead = 64 << 10;
constexpr unsigned kClientLeft = 499;  // only in the log
constexpr size_t kLongestId = 128;
constexpr size_t kLargeBody = 8 << 10;                 // may take a millisecond and more to read
constexpr std::chrono::milliseconds kForTheEnd{2000};  // from our last byte until we close

auto into(error_code& error) { return asio::redirect_error(asio::use_awaitable, error); }

std::string_view text(boost::beast::string_view view) { return {view.data(), view.size()}; }

bool is_malformed(const error_code& error) {
  return error.category() == http::make_error_code(http::error::bad_method).category();
}

std::string new_request_id() {
  std::array<unsigned char, 12> bytes{};
  RAND_bytes(bytes.data(), static_cast<int>(bytes.size()));
  std::string id = "req-";
  for (const unsigned char byte : bytes) id += fmt::format("{:02x}", byte);
  return id;
}

// What may go into a header and a log line as it is.
bool is_sound_id(std::string_view id) {
  return !id.empty() && id.size() <= kLongestId &&
         std::all_of(id.begin(), id.end(), [](char c) { return c > ' ' && c < '\x7f'; });
}

int hex_digit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

std::string percent_decoded(std::string_view path) {
  std::string out;
  for (size_t i = 0; i < path.size(); ++i) {
    const bool coded = path[i] == '%' && i + 2 < path.size();
    const int high = coded ? hex_digit(path[i + 1]) : -1;
    const int low = coded ? hex_digit(path[i + 2]) : -1;
    if (high >= 0 && low >= 0) {
      out += static_cast<char>(high * 16 + low);
      i += 2;
    } else {
      out += path[i];
    }
  }
  return out;
}

}  // namespace

Connection::Connection(Socket socket, const std::shared_ptr<asio::ssl::context>& tls,
                       std::shared_ptr<ConnectionContext> context, std::atomic<uint32_t>& count)
    : stream_(std::move(socket)),
      socket_(stream_.socket()),
      context_(std::move(context)),
      count_(count),
      wake_(socket_.get_executor()),
      time_up_(socket_.get_executor()) {
  ++count_;
  error_code ignored;
  socket_.set_option(asio::ip::tcp::no_delay(true), ignored);  // a Unix socket has none
  if (tls) stream_.use_tls(*tls);
  local_ = socket_.local_endpoint(ignored).protocol().family() == AF_UNIX;
}

Connection::~Connection() { --count_; }

void Connection::start() {
  auto body = [self = shared_from_this()]() -> asio::awaitable<void> { co_await self->run(); };
  asio::co_spawn(socket_.get_executor(), std::move(body), asio::detached);
}

void Connection::start_refusing() {
  auto body = [self = shared_from_this()]() -> asio::awaitable<void> { co_await self->refuse(); };
  asio::co_spawn(socket_.get_executor(), std::move(body), asio::detached);
}

void Connection::finish() {
  asio::post(socket_.get_executor(), [self = shared_from_this()] {
    if (!self->in_request_) self->close_now();
  });
}

void Connection::close() {
  asio::post(socket_.get_executor(), [self = shared_from_this()] { self->close_now(); });
}

void Connection::close_now() {
  error_code ignored;
  socket_.close(ignored);
  peer_left_ = true;
  wake();
}

// Limits come and go with each write: the timer is only set anew for one that is earlier than what
// it waits for; otherwise it finds the later one when it goes off.
void Connection::limit_time(Milliseconds time) {
  limit_ = time.count() == 0 ? kNever : std::chrono::steady_clock::now() + time;
  if (limit_ < time_up_set_) set_timer();
}

void Connection::set_timer() {
  time_up_set_ = limit_;
  time_up_.expires_at(limit_);
  time_up_.async_wait([weak = weak_from_this()](const error_code& error) {
    const auto self = weak.lock();
    if (error || !self) return;
    self->time_up_set_ = kNever;
    if (self->limit_ <= std::chrono::steady_clock::now()) {
      self->close_now();
    } else if (self->limit_ != kNever) {
      self->set_timer();
    }
  });
}

void Connection::wake() {
  woken_ = true;
  wake_.cancel();
}

asio::awaitable<bool> Connection::wait(Milliseconds time) {
  if (!woken_) {
    error_code ignored;
    wake_.expires_after(time);
    co_await wake_.async_wait(into(ignored));
  }
  co_return std::exchange(woken_, false);
}

asio::awaitable<void> Connection::run() {
  try {
    bool more = co_await greet();
    while (more) more = co_await serve_one();
    if (socket_.is_open()) co_await end_sending();
  } catch (const std::exception& failure) {
    spdlog::error("connection: {}", failure.what());
  }
  limit_time(Milliseconds(0));
  error_code ignored;
  socket_.close(ignored);
}

asio::awaitable<bool> Connection::greet() {
  auto* tls = stream_.tls();
  if (tls == nullptr) co_return true;
  error_code error;
  limit_time(context_->options.handshake_timeout);
  co_await tls->async_handshake(asio::ssl::stream_base::server, into(error));
  if (!error) co_return true;
  spdlog::debug("TLS handshake: {}", error.message());
  if (socket_.is_open()) co_await linger();
  co_return false;
}

asio::awaitable<void> Connection::refuse() {
  keep_alive_ = false;
  const bool greeted = co_await greet();
  if (greeted) {
    co_await write_reply(context_->handler->error(503, "Too many connections."));
    co_await linger();
  }
}

asio::awaitable<bool> Connection::serve_one() {
  const HttpOptions& options = context_->options;
  error_code error;
  Parser parser;
  parser.header_limit(options.max_header_bytes);
  parser.body_limit(options.max_body_bytes);
  in_request_ = false;
  head_ = {};
  head_.id = new_request_id();
  target_ = "-";
  sent_ = 0;
  // An end that watch() has read is not signalled again.
  if (context_->finishing || (peer_left_ && buffer_.size() == 0)) co_return false;
  limit_time(options.idle_timeout);
  co_await http::async_read_header(stream_, buffer_, parser, into(error));
  in_request_ = true;
  begun_ = std::chrono::steady_clock::now();
  if (error == http::error::header_limit) {
    co_return co_await reject(431, "The header is too large.");
  }
  if (error == http::error::body_limit) co_return co_await reject(413, "The body is too large.");
  if (error == http::error::end_of_stream || error == http::error::partial_message) {
    co_return false;
  }
  if (is_malformed(error)) co_return co_await reject(400, "This is not HTTP/1.1.");
  if (error) co_return false;

  read_head(parser);
  std::optional<HttpReply> refusal = context_->handler->refuse(head_);
  if (refusal) {
    const bool body_follows = !parser.is_done();
    if (body_follows) keep_alive_ = false;
    const bool written = co_await write_reply(std::move(*refusal));
    if (written && body_follows) co_await linger();
    co_return written&& keep_alive_;
  }
  if (!parser.is_done()) {
    limit_time(options.body_timeout);
    if (iequals(parser.get()[http::field::expect], "100-continue")) {
      const bool written = co_await write("HTTP/1.1 100 Continue\r\n\r\n");
      if (!written) co_return false;
      limit_time(options.body_timeout);
    }
    co_await http::async_read(stream_, buffer_, parser, into(error));
    if (error == http::error::body_limit) co_return co_await reject(413, "The body is too large.");
    if (error == http::error::partial_message) co_return false;
    if (is_malformed(error)) co_return co_await reject(400, "The body is malformed.");
    if (error) co_return false;
  }
  limit_time(Milliseconds(0));
  HttpRequest request = head_;
  request.body = std::move(parser.get().body());
  Answer answer = co_await handle(std::move(request));
  bool open = false;
  if (auto* reply = std::get_if<HttpReply>(&answer)) {
    open = co_await write_reply(std::move(*reply));
  } else {
    open = co_await follow(std::move(std::get<std::unique_ptr<PendingReply>>(answer)));
  }
  co_return open&& keep_alive_;
}

asio::awaitable<Answer> Connection::handle(HttpRequest request) {
  if (request.body.size() < kLargeBody) co_return context_->handler->handle(std::move(request));
  auto work = [](ConnectionContext& context, HttpRequest large) -> asio::awaitable<Answer> {
    co_return context.handler->handle(std::move(large));
  };
  co_return co_await asio::co_spawn(context_->aside, work(*context_, std::move(request)),
                                    asio::use_awaitable);
}

void Connection::read_head(const Parser& parser) {
  const auto& message = parser.get();
  const std::string_view target = text(message.target());
  const std::string_view path = target.substr(0, target.find('?'));
  target_ = path.substr(0, kLongestId);
  head_.method = text(message.method_string());
  head_.path = percent_decoded(path);
  head_.content_type = text(message[http::field::content_type]);
  head_.authorization = text(message[http::field::authorization]);
  head_.origin = text(message[http::field::origin]);
  head_.host = text(message[http::field::host]);
  head_.if_none_match = text(message[http::field::if_none_match]);
  head_.local = local_;
  head_.requested_headers = text(message[http::field::access_control_request_headers]);
  const std::string_view id = text(message["x-request-id"]);
  if (is_sound_id(id)) head_.id = id;
  http_1_0_ = message.version() < 11;
  keep_alive_ = parser.keep_alive() && !http_1_0_;
}

// What we cannot read on from: answers and gives the client a moment to read it.
asio::awaitable<bool> Connection::reject(unsigned status, std::string message) {
  keep_alive_ = false;
  const bool written = co_await write_reply(context_->handler->error(status, message));
  if (written) co_await linger();
  co_return false;
}

asio::awaitable<bool> Connection::follow(std::unique_ptr<PendingReply> pending) {
  woken_ = false;
  pending->on_ready([weak = weak_from_this()] {
    const auto self = weak.lock();
    if (!self) return;
    asio::post(self->socket_.get_executor(), [self] { self->wake(); });
  });
  watch();
  bool begun = false;  // the stream
  bool open = true;
  while (open) {
    PendingReply::Progress progress = pending->poll();
    if (peer_left_) {
      open = false;
    } else if (progress.reply) {
      co_await stop_watching();
      open = co_await write_reply(std::move(*progress.reply), pending->tokens());
      co_return open;
    } else if (!progress.events.empty() || progress.done) {
      open = co_await write_events(std::move(progress.events), begun, progress.done);
    }
    if (!open || progress.done) break;
    const bool woken = co_await wait(context_->options.keep_alive);
    if (woken) continue;
    std::string comment = pending->keep_alive();
    if (!comment.empty()) open = co_await write_events(std::move(comment), begun, false);
  }
  const auto tokens = pending->tokens();
  pending.reset();
  co_await stop_watching();
  log(open ? 200 : kClientLeft, tokens);
  co_return open && !http_1_0_;
}

// The last events and the end of the answer go out together: many a client leaves once it has seen
// the former.
asio::awaitable<bool> Connection::write_events(std::string events, bool& begun, bool last) {
  std::string bytes;
  if (!std::exchange(begun, true)) {
    HttpReply head{.status = 200, .body = {}, .content_type = "text/event-stream", .headers = {}};
    head.headers.emplace_back("Cache-Control", "no-cache");
    if (!http_1_0_) head.headers.emplace_back("Transfer-Encoding", "chunked");
    bytes = head_text(head) + "\r\n";
  }
  if (http_1_0_) {
    bytes += events;
  } else {
    if (!events.empty()) bytes += fmt::format("{:x}\r\n{}\r\n", events.size(), events);
    if (last) bytes += "0\r\n\r\n";
  }
  co_return co_await write(std::move(bytes));
}

asio::awaitable<bool> Connection::write_reply(HttpReply reply, std::optional<TokenCounts> tokens) {
  if (context_->finishing) keep_alive_ = false;
  std::string bytes = head_text(reply);
  const bool bodiless = reply.status == 204 || reply.status == 304;
  if (!bodiless) bytes += fmt::format("Content-Length: {}\r\n", reply.body.size());
  bytes += "\r\n";
  if (head_.method != "HEAD") bytes += reply.body;
  const bool written = co_await write(std::move(bytes));
  log(reply.status, tokens);
  co_return written;
}

std::string Connection::head_text(const HttpReply& reply) const {
  std::string out = fmt::format("HTTP/1.1 {} {}\r\n", reply.status,
                                text(http::obsolete_reason(http::int_to_status(reply.status))));
  auto add = [&](std::string_view name, std::string_view value) {
    out += fmt::format("{}: {}\r\n", name, value);
  };
  if (!reply.content_type.empty()) add("Content-Type", reply.content_type);
  for (const auto& [name, value] : reply.headers) add(name, value);
  for (const auto& [name, value] : context_->handler->common_headers(head_)) add(name, value);
  if (!keep_alive_) add("Connection", "close");
  return out;
}

asio::awaitable<bool> Connection::write(std::string bytes) {
  error_code error;
  limit_time(context_->options.write_timeout);
  sent_ += co_await asio::async_write(stream_, asio::buffer(bytes), into(error));
  limit_time(Milliseconds(0));
  co_return !error;
}

// Under TLS the other side must see that nothing was cut off.
asio::awaitable<void> Connection::end_sending() {
  error_code ignored;
  limit_time(kForTheEnd);
  if (auto* tls = stream_.tls()) co_await tls->async_shutdown(into(ignored));
  socket_.shutdown(Socket::shutdown_send, ignored);
}

// Closing a socket with unread bytes would reset it and could take the answer away from the client:
// say that we are done and swallow what still comes, within limits.
asio::awaitable<void> Connection::linger() {
  co_await end_sending();
  error_code error;
  std::array<char, 16384> sink;
  size_t swallowed = 0;
  while (!error && swallowed < context_->options.max_body_bytes * 4) {
    swallowed += co_await socket_.async_read_some(asio::buffer(sink), into(error));
  }
  socket_.close(error);
}

void Connection::watch() {
  watching_ = true;
  watch_ends_ = false;
  stream_.async_read_some(buffer_.prepare(4096),
                          [self = shared_from_this()](const error_code& error, size_t bytes) {
                            self->watching_ = false;
                            self->buffer_.commit(bytes);
                            if (error && error != asio::error::operation_aborted)
                              self->peer_left_ = true;
                            if (!error && !self->watch_ends_ && self->buffer_.size() < kReadAhead) {
                              self->watch();
                            } else {
                              self->wake();
                            }
                          });
}

asio::awaitable<void> Connection::stop_watching() {
  watch_ends_ = true;
  error_code ignored;
  if (watching_) socket_.cancel(ignored);
  while (watching_) co_await wait(Milliseconds(1000));
}

void Connection::log(unsigned status, std::optional<TokenCounts> tokens) const {
  const auto time = std::chrono::steady_clock::now() - begun_;
  if (context_->access_log) {
    context_->access_log->write({head_, target_, status, sent_, time, tokens});
  } else {
    spdlog::info("{} {} {} {} {:.1f} ms", head_.id, head_.method, target_, status,
                 std::chrono::duration<double, std::milli>(time).count());
  }
}

}  // namespace flexllm::server
