// Signals for a server. SIGINT and SIGTERM: the first one asks it to stop, a second one ends it at
// once. SIGHUP asks it to read its files again; SIGPIPE does nothing. Made by the main thread
// before there are others.
#pragma once

#include <atomic>
#include <condition_variable>
#include <functional>
#include <mutex>
#include <thread>

namespace flexllm::cli {

class ServerSignals {
 public:
  ServerSignals();
  ~ServerSignals();
  ServerSignals(const ServerSignals&) = delete;
  ServerSignals& operator=(const ServerSignals&) = delete;

  // Until this is called already the first signal ends the program at once.
  void expect() { expected_ = true; }
  // Called at each SIGHUP from a thread of this object's; until this is set SIGHUP does nothing.
  void on_hangup(std::function<void()> reload);
  // Until the first signal.
  void wait();

 private:
  void watch();

  std::atomic<bool> expected_{false};
  std::atomic<bool> over_{false};
  std::mutex mutex_;
  std::condition_variable changed_;
  bool came_ = false;
  std::function<void()> reload_;
  std::thread thread_;
};

}  // namespace flexllm::cli
