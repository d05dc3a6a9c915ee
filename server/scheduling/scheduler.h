// Continuous batching on one card. One thread, started by the constructor, owns the backend: it
// admits what waits, runs decode steps for all choices in decode with chunks of prefill beside
// them, samples, and sends events back. Everything else may be called from any thread.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "server/scheduling/backend.h"
#include "server/scheduling/generation.h"
#include "server/scheduling/sequence.h"
#include "server/telemetry/metrics.h"
#include "server/text/text_model.h"

namespace flexllm::server {

struct SchedulerOptions {
  uint32_t max_queue = 256;        // requests waiting for their first slot
  uint32_t max_sequences = 0;      // choices on the card at once; 0: as many as a decode launch has
  uint32_t prefill_chunk = 256;    // rows of a prefill launch, cut to what the card takes
  uint32_t context_length = 0;     // cut below the model's and the card's; 0: not
  size_t result_bytes = 1u << 20;  // unread results after which a reader is too slow
  uint32_t max_faults = 2;         // failed launches in one place that a choice may have
  std::chrono::milliseconds recovery_pause{5000};  // between attempts to bring a lost card back
};

class Scheduler {
 public:
  enum class State { ready, recovering, lost, draining, stopped };

  Scheduler(std::unique_ptr<Backend> backend, std::shared_ptr<const TextModel> text,
            std::shared_ptr<Metrics> metrics, SchedulerOptions options);
  // Ends all requests with an error, waits for the launches in flight and joins the thread.
  ~Scheduler();
  Scheduler(const Scheduler&) = delete;
  Scheduler& operator=(const Scheduler&) = delete;

  // Takes the request or says why not: context exceeded, queue full, lost, draining. Whoever drops
  // the queue must cancel() it first.
  tl::expected<std::shared_ptr<ResultQueue>, ApiError> submit(GenerationRequest request);

  // Positions that prompt and answer share.
  uint32_t context_length() const { return context_length_; }
  State state();

  // Refuses new work and returns when all that was taken has ended, or after `limit`: what is left
  // has then been given an error, even if the card hangs. Call once.
  void drain(std::chrono::milliseconds limit);

 private:
  using Clock = std::chrono::steady_clock;
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
    bool started = false;
  };

  // The card failed a launch or a copy; `blamed` were part of it.
  struct Fault {
    host::DeviceError error;
    std::vector<Work> blamed;
    bool leaves_usable() const {
      return error.kind == host::DeviceError::Kind::launch_failed;  // host/engine.h
    }
  };

  void loop();
  bool wait_for_work();
  void turn();
  void take_inbox();
  void drop_departed();
  void admit();
  void make_room();
  void preempt_newest();

  // scheduler_step.cpp
  void step();
  Planned plan(host::Stage stage);
  bool add_rows(Planned& planned, Sequence& sequence, uint32_t rows);
  bool goes_to_decode(const Sequence& sequence) const;
  std::optional<Fault> start(Planned& planned);
  std::optional<Fault> collect(Planned& planned, const host::LaunchResult& result);
  tl::expected<host::Choice, host::DeviceError> sample(Sequence& sequence, host::Stage stage,
                                                       uint32_t row, const host::RowOutput& output);
  void deliver(Sequence& sequence, std::optional<FinishReason> finish);
  void handle(const std::vector<Fault>& faults);

  bool recover();
  void fail(Job& job, const ApiError& error);
  void fail_all(const ApiError& error);
  void end(Job& job);
  void sweep();
  void enqueue(SequencePtr sequence);
  uint32_t pages_for(size_t positions) const;
  void publish();

  const std::unique_ptr<Backend> backend_;
  const std::shared_ptr<const TextModel> text_;
  const std::shared_ptr<Metrics> metrics_;
  const SchedulerOptions options_;
  const host::EngineLimits limits_;
  uint32_t context_length_ = 0;
  uint32_t max_sequences_ = 0;

  // Shared with the callers.
  std::mutex mutex_;
  std::condition_variable wake_;  // of the scheduler's thread
  std::condition_variable idle_;  // of drain()
  std::vector<std::shared_ptr<Job>> inbox_;
  uint32_t queued_jobs_ = 0;                          // taken and not started
  std::set<std::shared_ptr<ResultQueue>> open_jobs_;  // taken and not ended
  uint64_t arrivals_ = 0;
  bool stopping_ = false;
  bool draining_ = false;
  bool drain_expired_ = false;
  std::atomic<State> card_{State::ready};  // ready, recovering or lost

  // The scheduler's thread only.
  std::vector<SequencePtr> waiting_;  // by priority and arrival
  std::vector<SequencePtr> running_;  // likewise; they hold pages and a slot
  Clock::time_point next_recovery_{};
  uint32_t given_up_ = 0;  // requests, since a launch last succeeded

  std::thread thread_;
};

}  // namespace flexllm::server
