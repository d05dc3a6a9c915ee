#include "server/scheduling/batcher.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <exception>
#include <utility>

namespace flexllm::server {
namespace {

// What an answer without max_tokens is expected to take.
constexpr uint32_t kExpectedTokens = 256;

double seconds(std::chrono::steady_clock::duration time) {
  return std::chrono::duration<double>(time).count();
}

bool goes_before(const std::unique_ptr<Sequence>& a, const std::unique_ptr<Sequence>& b) {
  return a->before(*b);
}

double expected_cost(const GenerationRequest& request) {
  double tokens = 0;
  for (const auto& prompt : request.prompts) tokens += static_cast<double>(prompt.size());
  const uint32_t answer = std::min(request.max_tokens.value_or(kExpectedTokens), kExpectedTokens);
  return tokens + static_cast<double>(request.prompts.size()) * request.n * answer;
}

}  // namespace

Batcher::Batcher(std::unique_ptr<Backend> backend, std::shared_ptr<const TextModel> text,
                 std::shared_ptr<Metrics> metrics, const SchedulerOptions& options, Events events)
    : backend_(std::move(backend)),
      text_(std::move(text)),
      metrics_(std::move(metrics)),
      options_(options),
      events_(std::move(events)),
      limits_(backend_->limits()),
      cache_(*backend_, {.reuse = !options.no_prefix_cache,
                         .host_bytes = options.no_prefix_cache ? 0 : options.host_cache_bytes}) {
  const uint64_t capacity = static_cast<uint64_t>(limits_.pages) * limits_.page_tokens;
  context_length_ = static_cast<uint32_t>(std::min<uint64_t>(limits_.context_length, capacity));
  if (options_.context_length > 0) {
    context_length_ = std::min(context_length_, options_.context_length);
  }
  max_sequences_ = limits_.max_batch > 0 ? limits_.max_batch : limits_.max_prefill_rows;
  if (options_.max_sequences > 0) {
    max_sequences_ = std::min(max_sequences_, options_.max_sequences);
  }
  count();
}

void Batcher::add(std::shared_ptr<Job> job) {
  if (card_ == CardState::lost) return fail(*job, device_lost());
  job->fair_cost = expected_cost(job->request);
  job->fair_tag = fair_.arrive(job->request.client, job->fair_cost);
  const uint32_t choices = job->open_choices;
  for (uint32_t choice = 0; choice < choices; ++choice) {
    const auto& prompt = job->request.prompts[choice / job->request.n];
    const uint32_t room = context_length_ - static_cast<uint32_t>(prompt.size());
    const uint32_t tokens = std::min(job->request.max_tokens.value_or(room), room);
    enqueue(std::make_unique<Sequence>(job, choice, tokens, *text_));
  }
}

void Batcher::turn() {
  try {
    drop_departed();
    sweep();
    if (card_ != CardState::lost || recover()) {
      favour_overdue();
      admit();
      make_room();
      step();
    }
  } catch (const std::exception& error) {
    // A mistake of ours. What runs on the card is unknown, so it starts afresh like after a fault.
    spdlog::error("scheduler: {}", error.what());
    fail_all(internal_error());
    recover();
  }
  sweep();
  count();
}

void Batcher::stop(const ApiError& error) {
  fail_all(error);
  for (const host::Stage stage : {host::Stage::decode, host::Stage::prefill}) {
    if (flight(stage)) (void)backend_->wait(stage);
  }
  decode_flight_.reset();
  prefill_flight_.reset();
  for (auto& sequence : running_) sequence->in_flight = false;
  sweep();
  count();
}

void Batcher::drop_departed() {
  const auto now = events_.now();
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

// Whoever has lost patience goes before all that have not; there are ever fewer that arrived
// before, so nobody waits for ever.
void Batcher::favour_overdue() {
  const auto now = events_.now();
  bool changed = false;
  for (auto& sequence : waiting_) {
    Job& job = sequence->job();
    if (job.overdue || now - job.submitted < options_.patience) continue;
    job.overdue = changed = true;
  }
  if (!changed) return;
  std::stable_sort(waiting_.begin(), waiting_.end(), goes_before);
  std::stable_sort(running_.begin(), running_.end(), goes_before);
}

void Batcher::admit() {
  while (!waiting_.empty() && running_.size() < max_sequences_) {
    Sequence& next = *waiting_.front();
    if (&next == blocked_ && cache_.available() <= blocked_available_) break;
    blocked_ = nullptr;
    const uint32_t reused = reuse_pages(next);
    const uint32_t need = pages_for(next.length());
    // Room for those that run to grow by a page each, or they would be preempted at once.
    if (cache_.available() < need - next.pages.shared() + running_.size() ||
        !cache_.grow(next.pages, need)) {
      cache_.release(next.pages);
      next.skip_to(0);
      blocked_ = &next;
      blocked_available_ = cache_.available();
      break;
    }
    next.enter();
    count_reused(next, reused);
    if (Job& job = next.job(); !job.started) {
      job.started = true;
      job.placed = events_.now();
      fair_.serve(job.fair_tag);
      metrics_->prefix_query_tokens += job.usage.prompt_tokens * job.request.n;
      metrics_->queue_s.observe(seconds(job.placed - job.submitted));
      if (options_.trace) {
        const auto track = Trace::of_request(job.arrival);
        options_.trace->name(track, job.request.id);
        options_.trace->span(track, "queued", job.submitted, job.placed);
      }
      events_.started(job);
    }
    auto place = std::upper_bound(running_.begin(), running_.end(), waiting_.front(), goes_before);
    running_.insert(place, std::move(waiting_.front()));
    waiting_.erase(waiting_.begin());
  }
}

// Takes over what is known of its next pages, whoever computed them. Returns how many positions.
uint32_t Batcher::reuse_pages(Sequence& sequence) {
  const uint32_t page_tokens = limits_.page_tokens;
  if (sequence.computed() != sequence.pages.shared() * page_tokens) return 0;
  const uint32_t pages =
      cache_.extend(sequence.pages, sequence.tokens(), sequence.reusable_pages(page_tokens));
  sequence.skip_to(sequence.pages.shared() * page_tokens);
  return pages * page_tokens;
}

void Batcher::count_reused(Sequence& sequence, uint32_t positions) {
  if (sequence.resumed()) return;
  sequence.count_reused(positions);
  metrics_->prefix_hit_tokens += positions;
}

// Every running sequence gets the page of its next position; when the card is full the last in
// order give theirs up and come back later. One that is in a launch keeps its pages until that has
// ended, and those before it stand still meanwhile.
void Batcher::make_room() {
  for (size_t i = 0; i < running_.size();) {
    Sequence& sequence = *running_[i];
    if (sequence.in_flight || cache_.grow(sequence.pages, pages_for(sequence.length()))) {
      ++i;
      continue;
    }
    if (running_.back()->in_flight) return;
    ++metrics_->preemptions;
    if (options_.trace) {
      options_.trace->instant(Trace::of_request(running_.back()->job().arrival), "preempted",
                              events_.now());
    }
    suspend(*running_.back(), PageCache::Keep::yes);
  }
}

void Batcher::suspend(Sequence& sequence, PageCache::Keep keep) {
  cache_.release(sequence.pages, keep);
  sequence.restart();
  const auto place = std::find_if(running_.begin(), running_.end(),
                                  [&](const SequencePtr& s) { return s.get() == &sequence; });
  SequencePtr suspended = std::move(*place);
  running_.erase(place);
  enqueue(std::move(suspended));
}

void Batcher::enqueue(SequencePtr sequence) {
  auto place = std::upper_bound(waiting_.begin(), waiting_.end(), sequence, goes_before);
  waiting_.insert(place, std::move(sequence));
}

uint32_t Batcher::pages_for(size_t positions) const {
  return static_cast<uint32_t>((positions + limits_.page_tokens - 1) / limits_.page_tokens);
}

bool Batcher::recover() {
  // A lost card stays lost, and its requests are refused at once, until an attempt has succeeded.
  if (card_ != CardState::lost) card_ = CardState::recovering;
  given_up_ = 0;
  const auto begin = events_.now();
  tl::expected<void, host::DeviceError> recovered;
  try {
    recovered = backend_->recover();
  } catch (const std::exception& error) {
    recovered =
        tl::unexpected(host::DeviceError{host::DeviceError::Kind::reset_failed, error.what()});
  }
  if (options_.trace) {
    options_.trace->span(Trace::of_stage(host::Stage::decode), recovered ? "reset" : "failed reset",
                         begin, events_.now());
  }
  // Whatever was in flight is gone, and so is what the pages held.
  decode_flight_.reset();
  prefill_flight_.reset();
  for (auto& sequence : running_) sequence->in_flight = false;
  sweep();
  while (!running_.empty()) suspend(*running_.back(), PageCache::Keep::no);
  cache_.clear();
  if (recovered) {
    card_ = CardState::ready;
    ++metrics_->device_recoveries;
    spdlog::info("scheduler: the card is back");
    return true;
  }
  spdlog::error("scheduler: the card is lost: {}", recovered.error().message);
  card_ = CardState::lost;
  next_recovery_ = events_.now() + options_.recovery_pause;
  fail_all(device_lost());
  return false;
}

void Batcher::fail(Job& job, const ApiError& error) {
  if (job.ended) return;
  ++metrics_->finished_error;
  job.results->push(error);
  end(job);
}

void Batcher::fail_all(const ApiError& error) {
  for (auto* sequences : {&waiting_, &running_}) {
    for (auto& sequence : *sequences) fail(sequence->job(), error);
  }
}

void Batcher::end(Job& job) {
  job.ended = true;
  const double took = static_cast<double>(job.usage.prompt_tokens + job.usage.completion_tokens);
  fair_.correct(job.request.client, took - job.fair_cost);
  trace_end(job);
  metrics_->end_to_end_s.observe(seconds(events_.now() - job.submitted));
  events_.ended(job);
}

void Batcher::trace_end(const Job& job) const {
  if (!options_.trace) return;
  const auto now = events_.now();
  const auto track = Trace::of_request(job.arrival);
  if (job.first_token) {
    options_.trace->span(track, "decode", *job.first_token, now,
                         {{"tokens", job.usage.completion_tokens}});
  }
  options_.trace->span(track, "request", job.submitted, now,
                       {{"prompt_tokens", job.usage.prompt_tokens},
                        {"cached_tokens", job.usage.cached_tokens},
                        {"tokens", job.usage.completion_tokens}});
}

void Batcher::sweep() {
  auto over = [](const SequencePtr& s) { return (s->done || s->job().ended) && !s->in_flight; };
  for (auto& sequence : running_) {
    if (over(sequence)) cache_.release(sequence->pages);
  }
  if (std::erase_if(running_, over) + std::erase_if(waiting_, over) > 0) blocked_ = nullptr;
}

void Batcher::count() {
  metrics_->sequences_running = running_.size();
  metrics_->kv_pages_total = backend_->pages().total();
  metrics_->kv_pages_used = backend_->pages().total() - cache_.available();
  metrics_->kv_pages_cached = cache_.idle_pages();
  metrics_->host_cache_bytes = cache_.counts().host_bytes;
  metrics_->pages_to_host = cache_.counts().to_host;
  metrics_->pages_from_host = cache_.counts().from_host;
}

}  // namespace flexllm::server
