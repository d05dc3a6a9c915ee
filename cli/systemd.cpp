#include "cli/systemd.h"

#include <fmt/format.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include <charconv>
#include <chrono>
#include <cstdlib>
#include <cstring>

namespace flexllm::cli {
namespace {

std::string_view variable(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? "" : value;
}

uint64_t number(std::string_view text) {
  uint64_t value = 0;
  std::from_chars(text.data(), text.data() + text.size(), value);
  return value;
}

}  // namespace

Systemd::Systemd() : address_(variable("NOTIFY_SOCKET")) {
  const auto process = variable("WATCHDOG_PID");
  if (process.empty() || number(process) == static_cast<uint64_t>(getpid())) {
    interval_ = std::chrono::milliseconds(number(variable("WATCHDOG_USEC")) / 1000);
  }
}

Systemd::~Systemd() {
  {
    const std::lock_guard lock(mutex_);
    over_ = true;
    changed_.notify_all();
  }
  if (watch_.joinable()) watch_.join();
}

void Systemd::tell(const std::string& state) const {
  sockaddr_un address = {};
  if (address_.empty() || address_.size() >= sizeof address.sun_path) return;
  address.sun_family = AF_UNIX;
  std::memcpy(address.sun_path, address_.data(), address_.size());
  if (address_.front() == '@') address.sun_path[0] = '\0';  // not a file
  const int socket = ::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  if (socket < 0) return;
  // One that does not read must not hold the server up, least of all when it stops.
  const timeval patience = {.tv_sec = 1, .tv_usec = 0};
  ::setsockopt(socket, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
  const auto size = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + address_.size());
  ::sendto(socket, state.data(), state.size(), MSG_NOSIGNAL,
           reinterpret_cast<const sockaddr*>(&address), size);
  ::close(socket);
}

void Systemd::ready(std::string_view status) { tell(fmt::format("READY=1\nSTATUS={}", status)); }

void Systemd::reloading() {
  timespec now = {};
  clock_gettime(CLOCK_MONOTONIC, &now);
  tell(fmt::format("RELOADING=1\nMONOTONIC_USEC={}", now.tv_sec * 1000000 + now.tv_nsec / 1000));
}

void Systemd::stopping() { tell("STOPPING=1"); }

void Systemd::keep_watch(std::function<bool(std::chrono::milliseconds)> alive) {
  if (address_.empty() || interval_.count() == 0) return;
  watch_ = std::thread([this, alive = std::move(alive)] {
    std::unique_lock lock(mutex_);
    while (!over_) {
      lock.unlock();
      const auto begin = std::chrono::steady_clock::now();
      if (alive(interval_ / 2)) tell("WATCHDOG=1");
      lock.lock();
      changed_.wait_until(lock, begin + interval_ / 2, [this] { return over_; });
    }
  });
}

}  // namespace flexllm::cli
