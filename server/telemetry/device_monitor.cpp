#include "server/telemetry/device_monitor.h"

#include <utility>

#include "server/telemetry/prometheus.h"

namespace flexllm::server {

DeviceMonitor::DeviceMonitor(std::shared_ptr<const host::DeviceTelemetry> device,
                             std::shared_ptr<const Metrics> metrics, Options options)
    : device_(std::move(device)), metrics_(std::move(metrics)), options_(std::move(options)) {
  if (options_.interval.count() == 0) return;
  thread_ = std::thread([this] {
    std::unique_lock lock(mutex_);
    while (!stopping_) {
      lock.unlock();
      look();
      lock.lock();
      wake_.wait_for(lock, options_.interval, [this] { return stopping_; });
    }
  });
}

DeviceMonitor::~DeviceMonitor() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  wake_.notify_one();
  if (thread_.joinable()) thread_.join();
}

// Energy is power times time, by the trapezoidal rule. A pause in the readings, as while a card is
// reset, counts for nothing.
void DeviceMonitor::look(Clock::time_point now) {
  const host::BoardReading board = options_.board ? options_.board() : device_->board();
  const uint64_t tokens = metrics_->generated_tokens;
  const std::lock_guard lock(mutex_);
  if (board.watts && lately_.board.watts && looked_) {
    const std::chrono::duration<double> span = now - *looked_;
    const double joules = (*board.watts + *lately_.board.watts) / 2 * span.count();
    lately_.joules = lately_.joules.value_or(0) + joules;
  } else if (!lately_.joules) {
    tokens_before_ = tokens;
  }
  if (lately_.joules && tokens > tokens_before_) {
    lately_.joules_per_token = *lately_.joules / static_cast<double>(tokens - tokens_before_);
  }
  lately_.tokens_per_second = rate_.at(tokens, now);
  lately_.board = board;
  looked_ = now;
}

DeviceMonitor::Lately DeviceMonitor::lately() const {
  const std::lock_guard lock(mutex_);
  return lately_;
}

void DeviceMonitor::write(std::string& out) const {
  using prometheus::metric;
  using prometheus::quoted;
  const Lately now = lately();
  const std::string emulated = options_.emulated ? R"(emulated="true")" : R"(emulated="false")";
  metric(out, "device_info", "gauge",
         "Always 1: which device computes, and whether it is emulated.",
         {{fmt::format("device={},{}", quoted(options_.device), emulated), 1}});
  metric(out, "device_copied_bytes_total", "counter", "Bytes moved over the bus, by direction.",
         {{R"(direction="to_card")", static_cast<double>(device_->copied.to_card.load())},
          {R"(direction="from_card")", static_cast<double>(device_->copied.from_card.load())}});
  metric(out, "device_timeouts_total", "counter", "Launches that did not end in time.",
         {{"", static_cast<double>(device_->timeouts.load())}});
  metric(out, "device_resets_total", "counter", "Resets of the card that were begun.",
         {{"", static_cast<double>(device_->resets.load())}});
  const auto told = [&](const char* name, const char* type, const char* help,
                        const std::optional<double>& value) {
    if (value) metric(out, name, type, help, {{emulated, *value}});
  };
  told("board_power_watts", "gauge", "Power of the board; made up if emulated.", now.board.watts);
  told("board_temperature_celsius", "gauge", "Of the FPGA; made up if emulated.",
       now.board.celsius);
  told("board_energy_joules_total", "counter", "Power over time; made up if emulated.", now.joules);
  told("energy_per_token_joules", "gauge",
       "Energy of the board over tokens sampled, since the start; made up if emulated.",
       now.joules_per_token);
}

}  // namespace flexllm::server
