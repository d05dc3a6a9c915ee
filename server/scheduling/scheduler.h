// The Batcher in a thread of its own, which the constructor starts and which owns the backend.
// Requests come in from any thread, as long as the queue has room, and events go back to each
// request's ResultQueue. All members may be called from any thread.
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <set>
#include <thread>
#include <vector>

#include "server/scheduling/batcher.h"

namespace flexllm::server {

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
  uint32_t context_length() const { return batcher_.context_length(); }
  // Choices that are on the card at once.
  uint32_t max_sequences() const { return batcher_.max_sequences(); }
  State state();

  // Refuses new work and returns when all that was taken has ended, or after `limit`: what is left
  // has then been given an error, even if the card hangs. Call once.
  void drain(std::chrono::milliseconds limit);

 private:
  using Clock = std::chrono::steady_clock;

  void loop();
  bool wait_for_work();
  void take_inbox();
  void leave_queue(const Job& job);  // under the mutex
  void publish();

  const std::shared_ptr<Metrics> metrics_;
  const SchedulerOptions options_;
  Batcher batcher_;  // its thread only, but for what is set once, and card()

  // Shared with the callers.
  std::mutex mutex_;
  std::condition_variable wake_;  // of the scheduler's thread
  std::condition_variable idle_;  // of drain()
  std::vector<std::shared_ptr<Job>> inbox_;
  uint32_t queued_jobs_ = 0;                          // taken and not started
  uint64_t queued_tokens_ = 0;                        // of their prompts
  std::set<std::shared_ptr<ResultQueue>> open_jobs_;  // taken and not ended
  uint64_t arrivals_ = 0;
  bool stopping_ = false;
  bool draining_ = false;
  bool drain_expired_ = false;

  std::thread thread_;
};

}  // namespace flexllm::server
