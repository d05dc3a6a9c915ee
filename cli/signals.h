// SIGINT and SIGTERM for a server: the first one asks it to stop, a second one ends it at once.
// Made by the main thread before there are others.
#pragma once

#include <atomic>
#include <condition_variable>
#include <mutex>
#include <thread>

namespace flexllm::cli {

class StopSignals {
 public:
  StopSignals();
  ~StopSignals();
  StopSignals(const StopSignals&) = delete;
  StopSignals& operator=(const StopSignals&) = delete;

  // Until this is called already the first signal ends the program at once.
  void expect() { expected_ = true; }
  // Until the first signal.
  void wait();

 private:
  void watch();

  std::atomic<bool> expected_{false};
  std::atomic<bool> over_{false};
  std::mutex mutex_;
  std::condition_variable changed_;
  bool came_ = false;
  std::thread thread_;
};

}  // namespace flexllm::cli
