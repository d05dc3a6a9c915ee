#include "server/scheduling/scheduler.h"

#include <random>
#include <utility>

namespace flexllm::server {
namespace {

ApiError shutting_down() { return unavailable("The server is shutting down.", "draining"); }

uint64_t random_seed() {
  std::random_device device;
  return (static_cast<uint64_t>(device()) << 32) | device();
}

}  // namespace

Scheduler::Scheduler(std::unique_ptr<Backend> backend, std::shared_ptr<const TextModel> text,
                     std::shared_ptr<Metrics> metrics, SchedulerOptions options)
    : metrics_(metrics),
      options_(options),
      batcher_(std::move(backend), std::move(text), std::move(metrics), options,
               {.started =
                    [this](Job& job) {
                      const std::lock_guard lock(mutex_);
                      leave_queue(job);
                    },
                .ended =
                    [this](Job& job) {
                      const std::lock_guard lock(mutex_);
                      if (!job.started) leave_queue(job);
                      open_jobs_.erase(job.results);
                      if (open_jobs_.empty()) idle_.notify_all();
                    },
                .now = [] { return Clock::now(); }}) {
  thread_ = std::thread([this] { loop(); });
}

Scheduler::~Scheduler() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  wake_.notify_one();
  thread_.join();
}

tl::expected<std::shared_ptr<ResultQueue>, ApiError> Scheduler::submit(GenerationRequest request) {
  const uint64_t answer = request.max_tokens == 0u ? 0 : 1;
  uint64_t prompt_tokens = 0;
  for (const auto& prompt : request.prompts) {
    if (prompt.size() + answer > context_length()) {
      return tl::unexpected(context_exceeded(prompt.size(), context_length()));
    }
    prompt_tokens += prompt.size();
  }
  if (!request.seeded) request.sampling.seed = random_seed();

  auto job = std::make_shared<Job>();
  job->results = std::make_shared<ResultQueue>(options_.result_bytes);
  job->submitted = Clock::now();
  job->open_choices = static_cast<uint32_t>(request.prompts.size()) * request.n;
  job->usage.prompt_tokens = prompt_tokens;
  job->request = std::move(request);
  {
    const std::lock_guard lock(mutex_);
    if (stopping_ || draining_) return tl::unexpected(shutting_down());
    if (batcher_.card() == CardState::lost) return tl::unexpected(device_lost());
    const bool tokens_fit =
        queued_jobs_ == 0 || queued_tokens_ + prompt_tokens <= options_.max_queued_tokens;
    if (queued_jobs_ >= options_.max_queue || !tokens_fit) {
      ++metrics_->rejected_queue_full;
      return tl::unexpected(queue_full());
    }
    ++queued_jobs_;
    queued_tokens_ += prompt_tokens;
    open_jobs_.insert(job->results);
    job->arrival = arrivals_++;
    inbox_.push_back(job);
    metrics_->requests_waiting = queued_jobs_;
  }
  wake_.notify_one();
  metrics_->prompt_tokens += prompt_tokens;
  metrics_->prompt_length.observe(static_cast<double>(prompt_tokens));
  return job->results;
}

Scheduler::State Scheduler::state() {
  const std::lock_guard lock(mutex_);
  if (stopping_) return State::stopped;
  if (draining_) return State::draining;
  switch (batcher_.card()) {
    case CardState::ready:
      return State::ready;
    case CardState::recovering:
      return State::recovering;
    case CardState::lost:
      break;
  }
  return State::lost;
}

void Scheduler::drain(std::chrono::milliseconds limit) {
  std::set<std::shared_ptr<ResultQueue>> left;
  {
    std::unique_lock lock(mutex_);
    draining_ = true;
    if (idle_.wait_for(lock, limit, [this] { return open_jobs_.empty(); })) return;
    drain_expired_ = true;
    left = open_jobs_;
  }
  wake_.notify_one();
  // The scheduler's thread does the same when it comes to it; a launch or a recovery may keep it.
  for (const auto& results : left) results->push(shutting_down());
}

void Scheduler::loop() {
  publish();
  while (wait_for_work()) {
    take_inbox();
    batcher_.turn();
    publish();
  }
  take_inbox();
  batcher_.stop(shutting_down());
  publish();
}

bool Scheduler::wait_for_work() {
  if (batcher_.busy()) {
    const std::lock_guard lock(mutex_);
    return !stopping_;
  }
  std::unique_lock lock(mutex_);
  const auto work = [this] { return stopping_ || drain_expired_ || !inbox_.empty(); };
  if (batcher_.card() == CardState::lost) {
    wake_.wait_until(lock, batcher_.next_recovery(), work);
  } else {
    wake_.wait(lock, work);
  }
  return !stopping_;
}

void Scheduler::take_inbox() {
  std::vector<std::shared_ptr<Job>> arrived;
  bool expired = false;
  {
    const std::lock_guard lock(mutex_);
    arrived.swap(inbox_);
    expired = std::exchange(drain_expired_, false);
  }
  for (auto& job : arrived) batcher_.add(std::move(job));
  if (expired) batcher_.fail_all(shutting_down());
}

void Scheduler::leave_queue(const Job& job) {
  --queued_jobs_;
  queued_tokens_ -= job.usage.prompt_tokens;
}

void Scheduler::publish() {
  const std::lock_guard lock(mutex_);
  metrics_->requests_waiting = queued_jobs_;
  metrics_->requests_running = open_jobs_.size() - queued_jobs_;
}

}  // namespace flexllm::server
