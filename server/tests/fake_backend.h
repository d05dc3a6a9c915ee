// A backend without a card, for tests of what stands above it. It keeps what was written to each
// position of each page, and its logits are a hash of the tokens that the page table leads to: a
// wrong page, position, batch order or a lost write changes the text. Faults and delays on order.
#pragma once

#include <atomic>
#include <chrono>
#include <functional>
#include <map>
#include <mutex>
#include <optional>
#include <vector>

#include "server/scheduling/backend.h"

namespace flexllm::server::testing {

// A time of its own for a simulation: launches take what `cost` says and waiting for one moves the
// clock. For one thread.
struct VirtualTime {
  std::chrono::steady_clock::time_point now{};
  std::function<std::chrono::nanoseconds(const host::Launch&)> cost;
  bool shared = false;  // the stages share one memory: side by side each gets half of it
};

// Shared between the test and the backend inside of a scheduler. Thread-safe.
class FakeCard {
 public:
  VirtualTime* time = nullptr;  // null: the real one, and launch_ms
  // Launches and copies to come that fail, by how many succeed before.
  std::atomic<int> fail_start_after{-1};  // counts down; fails once at 0; negative: never
  std::atomic<int> fail_wait_after{-1};
  std::atomic<int> fail_logits_after{-1};
  std::atomic<int> fail_copy_after{-1};  // of pages
  // What a failed launch is; all but launch_failed need a recovery.
  std::atomic<host::DeviceError::Kind> fault_kind{host::DeviceError::Kind::launch_timeout};
  std::atomic<int> failing_recoveries{0};
  std::atomic<int> throwing_recoveries{0};  // the first ones
  std::atomic<int> launch_ms{0};            // how long a launch takes
  std::atomic<bool> hold{false};            // launches do not end while this is set
  std::atomic<bool> hold_recovery{false};   // likewise recoveries
  // A launch that has this token as a row is `launch_failed`, always.
  std::atomic<int> bad_token{-1};

  std::atomic<int> launches{0};
  std::atomic<int> rows{0};             // of all launches
  std::atomic<int> largest_prefill{0};  // rows
  std::atomic<int> largest_decode{0};   // rows
  std::atomic<int> mixed_turns{0};      // decode launches with a prefill in flight beside
  std::atomic<int> recoveries{0};
  std::atomic<uint32_t> pages_available{0};
  host::DeviceTelemetry telemetry;
};

struct FakeModel {
  host::EngineLimits limits{.max_prefill_rows = 16,
                            .max_batch = 4,
                            .max_logits_rows = 4,
                            .context_length = 256,
                            .page_tokens = 8,
                            .pages = 64,
                            .layers = 1,
                            .hidden = 8,
                            .vocab = 300};
  std::map<uint32_t, float> bias;  // added to the logits of these tokens
  float other_bias = 0;            // added to those of all others
};

class FakeBackend final : public Backend {
 public:
  FakeBackend(FakeModel model, std::shared_ptr<FakeCard> card);

  const host::EngineLimits& limits() const override { return model_.limits; }
  host::PageAllocator& pages() override { return pages_; }
  tl::expected<void, host::DeviceError> start(const host::Launch& launch) override;
  bool finished(host::Stage stage) const override;
  tl::expected<host::LaunchResult, host::DeviceError> wait(host::Stage stage) override;
  tl::expected<std::vector<float>, host::DeviceError> logits(host::Stage stage,
                                                             uint32_t row) override;
  tl::expected<std::vector<std::byte>, host::DeviceError> read_page(host::PageId page) override;
  tl::expected<void, host::DeviceError> write_page(host::PageId page,
                                                   std::span<const std::byte> bytes) override;
  tl::expected<void, host::DeviceError> recover() override;
  std::shared_ptr<const host::DeviceTelemetry> telemetry() const override {
    return {card_, &card_->telemetry};
  }

 private:
  struct Flight {
    bool running = false;
    bool failed = false;  // what its rows wrote is worthless
    std::chrono::steady_clock::time_point ends;
    std::vector<std::vector<float>> logits;  // of each row that asked
    std::vector<std::vector<float>> top_logits;
    std::vector<std::vector<uint32_t>> top_ids;
    host::LaunchResult result;
  };
  host::DeviceError fault(const char* what);
  void check(const host::Launch& launch) const;
  std::vector<float> logits_of(uint64_t hash) const;
  std::chrono::steady_clock::time_point now() const;
  void take_time(Flight& flight, const host::Launch& launch);
  Flight& flight(host::Stage stage) { return stage == host::Stage::decode ? decode_ : prefill_; }

  const FakeModel model_;
  const std::shared_ptr<FakeCard> card_;
  host::PageAllocator pages_;
  std::vector<std::vector<uint32_t>> memory_;  // [page][position in page]
  Flight decode_;
  Flight prefill_;
  bool broken_ = false;  // after a fault that is not launch_failed, until recover()
};

}  // namespace flexllm::server::testing
