// Continuous batching on one card, turn by turn: the queue, places and pages, launches of both
// stages side by side, sampling, faults. Pure logic over a Backend and a clock: the Scheduler
// gives it a thread, a simulation gives it a time of its own. Used by one thread, but for card().
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include "server/scheduling/backend.h"
#include "server/scheduling/fair_clock.h"
#include "server/scheduling/generation.h"
#include "server/scheduling/options.h"
#include "server/scheduling/page_cache.h"
#include "server/scheduling/sequence.h"
#include "server/telemetry/metrics.h"
#include "server/text/text_model.h"

namespace flexllm::server {

enum class CardState { ready, recovering, lost };

class Batcher {
 public:
  using TimePoint = std::chrono::steady_clock::time_point;

  // What the owner learns, in the thread that calls the batcher.
  struct Events {
    std::function<void(Job&)> started;  // one of its choices has a place for the first time
    std::function<void(Job&)> ended;    // its final event is sent
    std::function<TimePoint()> now;     // the clock
  };

  Batcher(std::unique_ptr<Backend> backend, std::shared_ptr<const TextModel> text,
          std::shared_ptr<Metrics> metrics, const SchedulerOptions& options, Events events);

  // Positions that prompt and answer share.
  uint32_t context_length() const { return context_length_; }
  uint32_t max_sequences() const { return max_sequences_; }
  CardState card() const { return card_; }  // any thread
  // When a lost card should be tried again.
  TimePoint next_recovery() const { return next_recovery_; }
  // Whether turn() has something to do.
  bool busy() const { return !waiting_.empty() || !running_.empty(); }

  // Its prompts fit the context and its open_choices are counted. On a lost card it ends at once.
  void add(std::shared_ptr<Job> job);
  // One turn: returns when a launch has ended, or at once if there was none to wait for.
  void turn();
  void fail_all(const ApiError& error);
  // Ends everything with `error` and waits for the launches in flight.
  void stop(const ApiError& error);

 private:
  using SequencePtr = std::unique_ptr<Sequence>;
  // Rows [first_row, first_row + rows) of a launch belong to `sequence`.
  struct Work {
    Sequence* sequence = nullptr;
    uint32_t first_row = 0;
    uint32_t rows = 0;
    bool samples = false;  // its last row brings the next token
  };
  struct Planned {
    host::Launch launch;
    std::vector<Work> work;
    uint32_t logits_rows = 0;
  };
  // The card failed a launch or a copy; `blamed` were part of it.
  struct Fault {
    host::DeviceError error;
    std::vector<Work> blamed;
    bool leaves_usable() const {
      return error.kind == host::DeviceError::Kind::launch_failed;  // host/engine.h
    }
  };

  // batcher.cpp: who has a place
  void drop_departed();
  void favour_overdue();
  void admit();
  void make_room();
  void suspend(Sequence& sequence, PageCache::Keep keep);
  uint32_t reuse_pages(Sequence& sequence);
  void count_reused(Sequence& sequence, uint32_t positions);
  bool recover();
  void fail(Job& job, const ApiError& error);
  void end(Job& job);
  void trace_end(const Job& job) const;
  void sweep();
  void enqueue(SequencePtr sequence);
  void count();
  uint32_t pages_for(size_t positions) const;

  // batcher_step.cpp: what a launch does
  void step();
  bool launch(host::Stage stage);
  void settle(host::Stage stage);
  void trace_launch(const Planned& planned, const host::LaunchResult& result) const;
  Planned plan(host::Stage stage);
  Planned plan_decode();
  Planned plan_prefill();
  std::vector<Sequence*> candidates(host::Stage stage) const;
  bool goes_to_decode(const Sequence& sequence) const;
  uint32_t prefill_rows() const;
  bool add_rows(Planned& planned, Sequence& sequence, uint32_t rows);
  std::optional<Fault> collect(Planned& planned, const host::LaunchResult& result);
  std::optional<Fault> take_token(Sequence& sequence, host::Stage stage, const Work& work,
                                  const host::RowOutput& row);
  tl::expected<host::Choice, host::DeviceError> sample(Sequence& sequence, host::Stage stage,
                                                       uint32_t row, const host::RowOutput& output);
  void deliver(Sequence& sequence, std::optional<FinishReason> finish);
  void handle(const Fault& fault);
  std::optional<Planned>& flight(host::Stage stage) {
    return stage == host::Stage::decode ? decode_flight_ : prefill_flight_;
  }

  const std::unique_ptr<Backend> backend_;
  const std::shared_ptr<const TextModel> text_;
  const std::shared_ptr<Metrics> metrics_;
  const SchedulerOptions options_;
  const Events events_;
  const host::EngineLimits limits_;
  uint32_t context_length_ = 0;
  uint32_t max_sequences_ = 0;

  std::atomic<CardState> card_{CardState::ready};
  PageCache cache_;
  FairClock fair_;
  std::vector<SequencePtr> waiting_;  // in the order in which they go
  std::vector<SequencePtr> running_;  // likewise; they hold pages and a place
  std::optional<Planned> decode_flight_;
  std::optional<Planned> prefill_flight_;
  double prefill_ns_per_row_ = 0;  // of late
  // The head of the queue that there was no room for, and the pages that there were then.
  const Sequence* blocked_ = nullptr;
  uint32_t blocked_available_ = 0;
  TimePoint next_recovery_{};
  uint32_t given_up_ = 0;  // requests, since a launch last succeeded
};

}  // namespace flexllm::server
