// What is known of the card beside the scheduler: looks at its board once a second, in a thread of
// its own, and sums up the energy. All members may be called from any thread.
#pragma once

#include <chrono>
#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>

#include "host/telemetry.h"
#include "server/telemetry/metrics.h"
#include "server/telemetry/token_rate.h"

namespace flexllm::server {

class DeviceMonitor {
 public:
  using Clock = std::chrono::steady_clock;
  struct Options {
    std::string device;                         // in words
    bool emulated = false;                      // what its board tells is made up
    std::chrono::milliseconds interval{1000};   // 0: no thread; somebody calls look()
    std::function<host::BoardReading()> board;  // empty: that of `device`
  };

  DeviceMonitor(std::shared_ptr<const host::DeviceTelemetry> device,
                std::shared_ptr<const Metrics> metrics, Options options);
  ~DeviceMonitor();
  DeviceMonitor(const DeviceMonitor&) = delete;
  DeviceMonitor& operator=(const DeviceMonitor&) = delete;

  void look(Clock::time_point now = Clock::now());

  struct Lately {
    host::BoardReading board;
    std::optional<double> joules;             // since the start; absent while no power was told
    std::optional<double> joules_per_token;   // likewise, and while there is no token
    std::optional<double> tokens_per_second;  // of the last seconds
  };
  Lately lately() const;

  // Appends its metrics in Prometheus' text format.
  void write(std::string& out) const;

 private:
  const std::shared_ptr<const host::DeviceTelemetry> device_;
  const std::shared_ptr<const Metrics> metrics_;
  const Options options_;

  mutable std::mutex mutex_;
  Lately lately_;
  std::optional<Clock::time_point> looked_;
  uint64_t tokens_before_ = 0;  // generated before the energy was counted
  TokenRate rate_;

  std::condition_variable wake_;
  bool stopping_ = false;
  std::thread thread_;
};

}  // namespace flexllm::server
