#include "cli/signals.h"

#include <poll.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <iterator>
#include <system_error>
#include <utility>

#include "cli/exit_code.h"

namespace flexllm::cli {
namespace {

constexpr int kSignals[] = {SIGINT, SIGTERM, SIGHUP};
constexpr int kMomentMs = 100;

// Eventfds that count them.
std::atomic<int> stops{-1};
std::atomic<int> hangups{-1};

// A library's thread that began before main() has the signals unblocked, so one may end there: it
// must find a handler, not the default action.
void count_arrival(int signal) {
  const int error = errno;
  const uint64_t one = 1;
  [[maybe_unused]] const ssize_t written =
      write(signal == SIGHUP ? hangups : stops, &one, sizeof one);
  errno = error;
}

// A log that nobody reads any more must not end the server. Unlike SIG_IGN a handler is not what
// programs that we start begin with.
void ignore(int) {}

void set_blocked(int how) {
  sigset_t set;
  sigemptyset(&set);
  for (const int signal : kSignals) sigaddset(&set, signal);
  pthread_sigmask(how, &set, nullptr);
}

}  // namespace

ServerSignals::ServerSignals() {
  for (auto* counter : {&stops, &hangups}) {
    *counter = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (*counter < 0) throw std::system_error(errno, std::generic_category(), "eventfd");
  }
  set_blocked(SIG_BLOCK);  // also in the threads to come, whose system calls are not interrupted
  struct sigaction action = {};
  action.sa_handler = count_arrival;
  action.sa_flags = SA_RESTART;
  for (const int signal : kSignals) sigaction(signal, &action, nullptr);
  action.sa_handler = ignore;
  sigaction(SIGPIPE, &action, nullptr);
  thread_ = std::thread([this] { watch(); });
}

ServerSignals::~ServerSignals() {
  over_ = true;
  thread_.join();
  struct sigaction action = {};
  action.sa_handler = SIG_DFL;
  for (const int signal : kSignals) sigaction(signal, &action, nullptr);
  sigaction(SIGPIPE, &action, nullptr);
  close(stops.exchange(-1));
  close(hangups.exchange(-1));
}

void ServerSignals::watch() {
  set_blocked(SIG_UNBLOCK);
  pollfd waiting[] = {{.fd = stops, .events = POLLIN, .revents = 0},
                      {.fd = hangups, .events = POLLIN, .revents = 0}};
  while (!over_) {
    uint64_t count = 0;
    if (poll(waiting, std::size(waiting), kMomentMs) <= 0) continue;
    if (read(stops, &count, sizeof count) == sizeof count) {
      const std::lock_guard lock(mutex_);
      if (came_ || count > 1 || !expected_) _exit(kInterrupted);
      came_ = true;
      changed_.notify_all();
    }
    if (read(hangups, &count, sizeof count) == sizeof count) {
      const std::lock_guard lock(mutex_);
      if (reload_) reload_();
    }
  }
}

void ServerSignals::on_hangup(std::function<void()> reload) {
  const std::lock_guard lock(mutex_);
  reload_ = std::move(reload);
}

void ServerSignals::wait() {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [this] { return came_; });
}

}  // namespace flexllm::cli
