// The whole server on a fake card at a free port, and a client that speaks bytes.
#pragma once

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <chrono>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>

#include "server/api/service.h"
#include "server/http/server.h"
#include "server/tests/harness.h"

namespace flexllm::server::testing {

struct TestServer {
  explicit TestServer(HttpOptions http_options = {}, ServiceOptions service_options = {},
                      SchedulerOptions scheduler_options = {}, FakeModel model = chatty_model(),
                      bool loaded = true) {
    if (http_options.port) http_options.port = 0;
    service_options.version = "test";
    service = std::make_shared<Service>(service_options);
    if (loaded) load(model, scheduler_options);
    auto started = HttpServer::start(http_options, service);
    EXPECT_TRUE(started) << (started ? "" : started.error());
    http = std::move(*started);
  }
  void load(const FakeModel& model = chatty_model(), const SchedulerOptions& options = {}) {
    service->serve({"fake", text, {}}, std::make_unique<FakeBackend>(model, card), options);
  }

  std::shared_ptr<FakeCard> card = std::make_shared<FakeCard>();
  std::shared_ptr<FakeText> text = std::make_shared<FakeText>();
  std::shared_ptr<Service> service;
  std::unique_ptr<HttpServer> http;
};

struct Response {
  int status = 0;
  std::string head;  // status line and headers, as sent
  std::string body;  // chunks joined

  nlohmann::json json() const { return nlohmann::json::parse(body, nullptr, false); }
  bool has(const std::string& text) const { return head.find(text) != std::string::npos; }
};

class Client {
 public:
  explicit Client(const TestServer& server, int receive_buffer = 0) {
    open(AF_INET, receive_buffer);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(server.http->port());
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    EXPECT_EQ(::connect(fd_, reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
  }
  // Through a Unix socket.
  explicit Client(const std::string& path) {
    open(AF_UNIX, 0);
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    path.copy(address.sun_path, sizeof address.sun_path - 1);
    EXPECT_EQ(::connect(fd_, reinterpret_cast<sockaddr*>(&address), sizeof address), 0) << path;
  }
  virtual ~Client() { close(); }
  Client(const Client&) = delete;
  Client& operator=(const Client&) = delete;

  void close() {
    if (fd_ >= 0) ::close(fd_);
    fd_ = -1;
  }
  void half_close() { ::shutdown(fd_, SHUT_WR); }

  bool send(std::string_view bytes) {
    while (!bytes.empty()) {
      const ssize_t sent = put(bytes);
      if (sent <= 0) return false;
      bytes.remove_prefix(static_cast<size_t>(sent));
    }
    return true;
  }
  // More bytes of what the server sent; false when it has closed.
  bool receive() {
    char bytes[65536];
    const ssize_t got = take(bytes, sizeof bytes);
    if (got <= 0) return false;
    in_.append(bytes, static_cast<size_t>(got));
    return true;
  }
  const std::string& unread() const { return in_; }
  bool wait_for(const std::string& text) {
    while (in_.find(text) == std::string::npos) {
      if (!receive()) return false;
    }
    return true;
  }
  // Reads to the next place where the bytes received end with `end`, and forgets them.
  bool skip_until(const std::string& end) {
    while (!in_.ends_with(end)) {
      if (in_.size() > 2 * end.size()) in_.erase(0, in_.size() - end.size());
      if (!receive()) return false;
    }
    in_.clear();
    return true;
  }
  // The next response; `head_only` for HEAD. Status 0: the server closed instead.
  Response read(bool head_only = false) {
    Response response;
    size_t end = 0;
    while ((end = in_.find("\r\n\r\n")) == std::string::npos) {
      if (!receive()) return response;
    }
    response.head = in_.substr(0, end + 2);
    in_.erase(0, end + 4);
    response.status = std::stoi(response.head.substr(9, 3));
    const size_t length = response.head.find("Content-Length: ");
    if (head_only || response.status == 204 || response.status == 100) return response;
    if (length != std::string::npos) {
      const size_t size = std::stoul(response.head.substr(length + 16));
      while (in_.size() < size && receive()) {
      }
      response.body = in_.substr(0, size);
      in_.erase(0, size);
    } else if (response.has("Transfer-Encoding: chunked")) {
      while (read_chunk(response.body)) {
      }
    } else {
      while (receive()) {
      }
      response.body = std::exchange(in_, {});
    }
    return response;
  }
  Response get(const std::string& path, const std::string& headers = "") {
    send("GET " + path + " HTTP/1.1\r\nHost: x\r\n" + headers + "\r\n");
    return read();
  }
  static std::string post_text(const std::string& path, const std::string& body,
                               const std::string& headers = "") {
    return "POST " + path + " HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n" + headers +
           "Content-Length: " + std::to_string(body.size()) + "\r\n\r\n" + body;
  }
  Response post(const std::string& path, const std::string& body, const std::string& headers = "") {
    send(post_text(path, body, headers));
    return read();
  }

 protected:
  virtual ssize_t put(std::string_view bytes) {
    return ::send(fd_, bytes.data(), bytes.size(), MSG_NOSIGNAL);
  }
  virtual ssize_t take(char* bytes, size_t size) { return ::recv(fd_, bytes, size, 0); }
  int fd_ = -1;

 private:
  void open(int family, int receive_buffer) {
    fd_ = ::socket(family, SOCK_STREAM, 0);
    if (receive_buffer > 0) {
      ::setsockopt(fd_, SOL_SOCKET, SO_RCVBUF, &receive_buffer, sizeof receive_buffer);
    }
    const timeval patience{.tv_sec = 60, .tv_usec = 0};
    ::setsockopt(fd_, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
  }
  bool read_chunk(std::string& body) {
    if (!wait_for("\r\n")) return false;
    const size_t line = in_.find("\r\n");
    const size_t size = std::stoul(in_.substr(0, line), nullptr, 16);
    while (in_.size() < line + 2 + size + 2) {
      if (!receive()) return false;
    }
    body += in_.substr(line + 2, size);
    in_.erase(0, line + 2 + size + 2);
    return size > 0;
  }

  std::string in_;
};

inline const std::string kChat = "/v1/chat/completions";
inline const std::string kCompletions = "/v1/completions";

}  // namespace flexllm::server::testing
