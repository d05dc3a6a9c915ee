// A scheduler on a fake card, and what its requests answer, for tests.
#pragma once

#include <gtest/gtest.h>

#include <condition_variable>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "server/scheduling/scheduler.h"
#include "server/tests/chatty_model.h"
#include "server/tests/fake_backend.h"
#include "server/tests/fake_text.h"
#include "server/tests/outcome.h"

namespace flexllm::server::testing {

class Reader {
 public:
  explicit Reader(std::shared_ptr<ResultQueue> queue) : queue_(std::move(queue)) {
    queue_->on_ready([signal = signal_] {
      const std::lock_guard lock(signal->mutex);
      signal->ready = true;
      signal->changed.notify_all();
    });
  }
  ~Reader() { queue_->cancel(); }
  void cancel() { queue_->cancel(); }

  // Reads until `done` says so or the answer has ended.
  template <class Done>
  const Outcome& read_until(Done done) {
    while (!outcome_.usage && !outcome_.error && !done(outcome_)) {
      {
        std::unique_lock lock(signal_->mutex);
        signal_->changed.wait(lock, [this] { return signal_->ready; });
        signal_->ready = false;
      }
      for (auto& event : queue_->take()) outcome_.add(event);
    }
    return outcome_;
  }
  const Outcome& read_all() {
    return read_until([](const Outcome&) { return false; });
  }

 private:
  // Outlives the reader: a call of the queue's may still be under way when it goes.
  struct Signal {
    std::mutex mutex;
    std::condition_variable changed;
    bool ready = false;
  };

  std::shared_ptr<ResultQueue> queue_;
  std::shared_ptr<Signal> signal_ = std::make_shared<Signal>();
  Outcome outcome_;
};

struct Bench {
  explicit Bench(FakeModel fake = chatty_model(), SchedulerOptions options = {})
      : model(std::move(fake)),
        scheduler(std::make_unique<FakeBackend>(model, card), text, metrics, options) {}

  GenerationRequest request(const std::string& prompt, uint32_t max_tokens = 40) const {
    GenerationRequest request;
    request.prompts = {text->encode(prompt, true)};
    request.max_tokens = max_tokens;
    request.sampling.temperature = 0;
    request.seeded = true;
    return request;
  }
  std::unique_ptr<Reader> submit(GenerationRequest request) {
    auto queue = scheduler.submit(std::move(request));
    EXPECT_TRUE(queue) << (queue ? "" : queue.error().message);
    return queue ? std::make_unique<Reader>(*queue) : nullptr;
  }
  Outcome run(GenerationRequest request) { return submit(std::move(request))->read_all(); }
  // Waits until the scheduler has nothing more to do; true if all pages came back.
  bool all_pages_return() {
    for (int i = 0; i < 2000; ++i) {
      if (metrics->kv_pages_used == 0 && metrics->requests_running == 0 &&
          metrics->requests_waiting == 0) {
        return true;
      }
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }
    return false;
  }

  FakeModel model;
  std::shared_ptr<FakeCard> card = std::make_shared<FakeCard>();
  std::shared_ptr<FakeText> text = std::make_shared<FakeText>();
  std::shared_ptr<Metrics> metrics = std::make_shared<Metrics>();
  Scheduler scheduler;
};

}  // namespace flexllm::server::testing
