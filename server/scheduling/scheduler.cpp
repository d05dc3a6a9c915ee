#include "server/scheduling/scheduler.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <exception>
#include <random>
#include <utility>

namespace flexllm::server {
namespace {

ApiError shutting_down() { return unavailable("The server is shutting down.", "draining"); }
ApiError lost() { return unavailable("The accelerator does not answer.", "device_lost"); }

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

uint64_t random_seed() {
  std::random_device device;
  return (static_cast<uint64_t>(device()) << 32) | device();
}

}  // namespace

Scheduler::Scheduler(std::unique_ptr<Backend> backend, std::shared_ptr<const TextModel> text,
                     std::shared_ptr<Metrics> metrics, SchedulerOptions options)
    : backend_(std::move(backend)),
      text_(std::move(text)),
      metrics_(std::move(metrics)),
      options_(options),
      limits_(backend_->limits()) {
  const uint64_t capacity = static_cast<uint64_t>(limits_.pages) * limits_.page_tokens;
  context_length_ = static_cast<uint32_t>(std::min<uint64_t>(limits_.context_length, capacity));
  if (options_.context_length > 0) {
    context_length_ = std::min(context_length_, options_.context_length);
  }
  max_sequences_ = limits_.max_batch > 0 ? limits_.max_batch : limits_.max_prefill_rows;
  if (options_.max_sequences > 0) {
    max_sequences_ = std::min(max_sequences_, options_.max_sequences);
  }
  publish();
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
    if (prompt.size() + answer > context_length_) {
      return tl::unexpected(context_exceeded(prompt.size(), context_length_));
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
    if (card_ == State::lost) return tl::unexpected(lost());
    if (queued_jobs_ >= options_.max_queue) {
      ++metrics_->rejected_queue_full;
      return tl::unexpected(queue_full());
    }
    ++queued_jobs_;
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
  return draining_ ? State::draining : card_.load();
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
  while (wait_for_work()) {
    try {
      turn();
    } catch (const std::exception& error) {
      // A mistake of ours. What runs on the card is unknown, so it starts afresh like after a
      // fault.
      spdlog::error("scheduler: {}", error.what());
      fail_all(internal_error());
      recover();
    }
    sweep();
    publish();
  }
  fail_all(shutting_down());
  sweep();
  publish();
}

bool Scheduler::wait_for_work() {
  std::unique_lock lock(mutex_);
  if (card_ == State::lost) {
    wake_.wait_until(lock, next_recovery_, [this] { return stopping_ || drain_expired_; });
  } else {
    wake_.wait(lock, [this] {
      return stopping_ || drain_expired_ || !inbox_.empty() || !waiting_.empty() ||
             !running_.empty();
    });
  }
  return !stopping_;
}

void Scheduler::turn() {
  take_inbox();
  drop_departed();
  sweep();
  if (card_ == State::lost && !recover()) return;
  admit();
  make_room();
  step();
}

void Scheduler::take_inbox() {
  std::vector<std::shared_ptr<Job>> arrived;
  bool expired = false;
  {
    const std::lock_guard lock(mutex_);
    arrived.swap(inbox_);
    expired = std::exchange(drain_expired_, false);
  }
  for (auto& job : arrived) {
    const uint32_t choices = job->open_choices;
    for (uint32_t choice = 0; choice < choices; ++choice) {
      const auto& prompt = job->request.prompts[choice / job->request.n];
      const uint32_t room = context_length_ - static_cast<uint32_t>(prompt.size());
      const uint32_t tokens = std::min(job->request.max_tokens.value_or(room), room);
      enqueue(std::make_unique<Sequence>(job, choice, tokens, *text_));
    }
  }
  if (expired) fail_all(shutting_down());
}

void Scheduler::drop_departed() {
  const auto now = Clock::now();
  for (auto* sequences : {&waiting_, &running_}) {
    for (auto& sequence : *sequences) {
      Job& job = sequence->job();
      if (job.ended) continue;
      if (job.results->cancelled()) {
        ++metrics_->finished_cancelled;
        end(job);
      } else if (job.request.deadline && *job.request.deadline <= now) {
        fail(job,
             unavailable("The request took longer than the server allows.", "request_timeout"));
      }
    }
  }
}

void Scheduler::admit() {
  while (!waiting_.empty() && running_.size() < max_sequences_) {
    Sequence& next = *waiting_.front();
    const uint32_t need = pages_for(next.length());
    // Room for those that run to grow by a page each, or they would be preempted at once.
    if (backend_->pages().available() < need + running_.size()) break;
    auto pages = backend_->pages().allocate(need);
    if (!pages) break;
    next.pages = std::move(*pages);
    next.enter();
    if (!next.job().started) {
      next.job().started = true;
      metrics_->queue_s.observe(seconds_since(next.job().submitted));
      const std::lock_guard lock(mutex_);
      --queued_jobs_;
    }
    auto place =
        std::upper_bound(running_.begin(), running_.end(), waiting_.front(),
                         [](const SequencePtr& a, const SequencePtr& b) { return a->before(*b); });
    running_.insert(place, std::move(waiting_.front()));
    waiting_.erase(waiting_.begin());
  }
}

// Every running sequence gets the page of its next position; when the card is full the newest give
// theirs up and are computed again later.
void Scheduler::make_room() {
  for (size_t i = 0; i < running_.size();) {
    Sequence& sequence = *running_[i];
    const size_t have = sequence.pages.size();
    const size_t need = pages_for(sequence.length());
    if (need <= have) {
      ++i;
    } else if (auto pages = backend_->pages().allocate(static_cast<uint32_t>(need - have))) {
      sequence.pages.insert(sequence.pages.end(), pages->begin(), pages->end());
      ++i;
    } else {
      preempt_newest();
    }
  }
}

void Scheduler::preempt_newest() {
  SequencePtr victim = std::move(running_.back());
  running_.pop_back();
  for (const auto page : victim->pages) backend_->pages().release(page);
  victim->pages.clear();
  victim->restart();
  ++metrics_->preemptions;
  enqueue(std::move(victim));
}

void Scheduler::enqueue(SequencePtr sequence) {
  auto place =
      std::upper_bound(waiting_.begin(), waiting_.end(), sequence,
                       [](const SequencePtr& a, const SequencePtr& b) { return a->before(*b); });
  waiting_.insert(place, std::move(sequence));
}

uint32_t Scheduler::pages_for(size_t positions) const {
  return static_cast<uint32_t>((positions + limits_.page_tokens - 1) / limits_.page_tokens);
}

bool Scheduler::recover() {
  // A lost card stays lost, and its requests are refused at once, until an attempt has succeeded.
  if (card_ != State::lost) card_ = State::recovering;
  given_up_ = 0;
  tl::expected<void, host::DeviceError> recovered;
  try {
    recovered = backend_->recover();
  } catch (const std::exception& error) {
    recovered =
        tl::unexpected(host::DeviceError{host::DeviceError::Kind::reset_failed, error.what()});
  }
  for (auto& sequence : running_) sequence->restart();
  if (recovered) {
    card_ = State::ready;
    ++metrics_->device_recoveries;
    spdlog::info("scheduler: the card is back");
    return true;
  }
  spdlog::error("scheduler: the card is lost: {}", recovered.error().message);
  {
    // Together with the check in submit(): nothing slips in that nobody would look at.
    const std::lock_guard lock(mutex_);
    card_ = State::lost;
  }
  next_recovery_ = Clock::now() + options_.recovery_pause;
  fail_all(lost());
  return false;
}

void Scheduler::fail(Job& job, const ApiError& error) {
  if (job.ended) return;
  ++metrics_->finished_error;
  job.results->push(error);
  end(job);
}

void Scheduler::fail_all(const ApiError& error) {
  std::vector<std::shared_ptr<Job>> arrived;
  {
    const std::lock_guard lock(mutex_);
    arrived.swap(inbox_);
  }
  for (auto& job : arrived) fail(*job, error);
  for (auto* sequences : {&waiting_, &running_}) {
    for (auto& sequence : *sequences) fail(sequence->job(), error);
  }
}

void Scheduler::end(Job& job) {
  job.ended = true;
  metrics_->end_to_end_s.observe(seconds_since(job.submitted));
  const std::lock_guard lock(mutex_);
  if (!job.started) --queued_jobs_;
  open_jobs_.erase(job.results);
  if (open_jobs_.empty()) idle_.notify_all();
}

void Scheduler::sweep() {
  auto over = [](const SequencePtr& s) { return s->done || s->job().ended; };
  for (auto& sequence : running_) {
    if (!over(sequence)) continue;
    for (const auto page : sequence->pages) backend_->pages().release(page);
  }
  std::erase_if(running_, over);
  std::erase_if(waiting_, over);
}

void Scheduler::publish() {
  uint64_t started = 0;
  {
    const std::lock_guard lock(mutex_);
    metrics_->requests_waiting = queued_jobs_;
    started = open_jobs_.size() - queued_jobs_;
  }
  metrics_->requests_running = started;
  metrics_->sequences_running = running_.size();
  metrics_->kv_pages_total = backend_->pages().total();
  metrics_->kv_pages_used = backend_->pages().total() - backend_->pages().available();
}

}  // namespace flexllm::server
