// How fast a counter has grown lately, from its values when it was looked at. Thread-safe.
#pragma once

#include <chrono>
#include <cstdint>
#include <deque>
#include <mutex>
#include <optional>

namespace flexllm::server {

class TokenRate {
 public:
  using Clock = std::chrono::steady_clock;

  // Notes that the counter is at `total` now. Growth per second since it was looked at up to
  // kWindow ago; nothing if it was not, or too short a time ago to say.
  std::optional<double> at(uint64_t total, Clock::time_point now = Clock::now()) {
    const std::lock_guard lock(mutex_);
    while (!seen_.empty() && now - seen_.front().time > kWindow) seen_.pop_front();
    if (seen_.empty() || now - seen_.back().time >= kStep) seen_.push_back({now, total});
    const std::chrono::duration<double> span = now - seen_.front().time;
    if (span < kStep) return std::nullopt;
    return static_cast<double>(total - seen_.front().total) / span.count();
  }

 private:
  static constexpr std::chrono::seconds kWindow{10};
  static constexpr std::chrono::milliseconds kStep{500};
  struct Look {
    Clock::time_point time;
    uint64_t total;
  };
  std::mutex mutex_;
  std::deque<Look> seen_;
};

}  // namespace flexllm::server
