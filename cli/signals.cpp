#include "cli/signals.h"

#include <signal.h>
#include <time.h>
#include <unistd.h>

#include "cli/exit_code.h"

namespace flexllm::cli {
namespace {

sigset_t stop_signals() {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGINT);
  sigaddset(&set, SIGTERM);
  return set;
}

}  // namespace

StopSignals::StopSignals() {
  const sigset_t set = stop_signals();
  pthread_sigmask(SIG_BLOCK, &set, nullptr);
  thread_ = std::thread([this] { watch(); });
}

StopSignals::~StopSignals() {
  over_ = true;
  thread_.join();
}

void StopSignals::watch() {
  const sigset_t set = stop_signals();
  const timespec moment{.tv_sec = 0, .tv_nsec = 100'000'000};
  while (!over_) {
    if (sigtimedwait(&set, nullptr, &moment) < 0) continue;
    const std::lock_guard lock(mutex_);
    if (came_ || !expected_) _exit(kInterrupted);
    came_ = true;
    changed_.notify_all();
  }
}

void StopSignals::wait() {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [this] { return came_; });
}

}  // namespace flexllm::cli
