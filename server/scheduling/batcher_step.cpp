// What a launch does: plan, start, wait, sample, deliver.
#include <spdlog/spdlog.h>

#include <algorithm>
#include <stdexcept>
#include <utility>

#include "server/scheduling/batcher.h"

namespace flexllm::server {
namespace {

using host::Stage;

// A prefill launch is not cut below this: a launch reads all weights whatever its rows.
constexpr uint32_t kLeastRows = 32;
// Rows of the first launches, until it is known how long they take.
constexpr uint32_t kFirstRows = 64;
constexpr double kNewest = 0.3;  // weight of the last launch in the time of a row

}  // namespace

// Both stages run on their own: a decode step is followed by the next while a prefill launch goes
// on. Waiting for the short one first keeps the distance between tokens that of decode steps.
void Batcher::step() {
  for (const Stage stage : {Stage::decode, Stage::prefill}) {
    if (!flight(stage) && !launch(stage)) return;
  }
  if (decode_flight_) {
    settle(Stage::decode);
    if (prefill_flight_ && backend_->finished(Stage::prefill)) settle(Stage::prefill);
  } else if (prefill_flight_) {
    settle(Stage::prefill);
  }
}

// Starts what there is to do. False: the card failed, and the turn is over.
bool Batcher::launch(Stage stage) {
  Planned planned = plan(stage);
  if (planned.work.empty()) return true;
  try {
    if (auto started = backend_->start(planned.launch); !started) {
      handle({started.error(), planned.work});
      return false;
    }
  } catch (const std::invalid_argument& error) {
    // The launch is not one that the engine takes: our mistake, and only these requests pay for it.
    spdlog::error("scheduler: {}", error.what());
    for (const auto& work : planned.work) fail(work.sequence->job(), internal_error());
    return true;
  }
  for (const Work& work : planned.work) work.sequence->in_flight = true;
  flight(stage) = std::move(planned);
  return true;
}

// Waits for the launch of `stage` and takes its results.
void Batcher::settle(Stage stage) {
  const auto result = backend_->wait(stage);
  Planned planned = std::move(*flight(stage));
  flight(stage).reset();
  for (const Work& work : planned.work) work.sequence->in_flight = false;
  if (!result) return handle({result.error(), planned.work});
  given_up_ = 0;
  trace_launch(planned, *result);
  if (const auto fault = collect(planned, *result)) handle(*fault);
}

void Batcher::trace_launch(const Planned& planned, const host::LaunchResult& result) const {
  if (!options_.trace) return;
  const Stage stage = planned.launch.stage;
  const auto end = events_.now();
  const auto begin = end - result.kernel_time;
  options_.trace->span(Trace::of_stage(stage), stage == Stage::decode ? "decode" : "prefill", begin,
                       end,
                       {{"choices", planned.work.size()}, {"rows", planned.launch.rows.size()}});
  if (stage == Stage::decode) return;
  for (const Work& work : planned.work) {
    options_.trace->span(Trace::of_request(work.sequence->job().arrival), "prefill", begin, end,
                         {{"rows", work.rows}, {"position", work.sequence->computed()}});
  }
}

bool Batcher::goes_to_decode(const Sequence& sequence) const {
  if (limits_.max_prefill_rows == 0) return true;
  return limits_.max_batch > 0 && sequence.remaining() == 1;
}

// Those that may take part in the next launch of `stage`: one that failed before goes alone.
std::vector<Sequence*> Batcher::candidates(Stage stage) const {
  std::vector<Sequence*> found;
  for (const auto& sequence : running_) {
    if (sequence->in_flight || sequence->done || sequence->job().ended) continue;
    if (sequence->pages.pages().size() < pages_for(sequence->length())) continue;
    if (goes_to_decode(*sequence) == (stage == Stage::decode)) found.push_back(sequence.get());
  }
  const auto suspect =
      std::find_if(found.begin(), found.end(), [](const Sequence* s) { return s->faults() > 0; });
  if (suspect != found.end()) found = {*suspect};
  return found;
}

Batcher::Planned Batcher::plan(Stage stage) {
  return stage == Stage::decode ? plan_decode() : plan_prefill();
}

Batcher::Planned Batcher::plan_decode() {
  Planned planned;
  planned.launch.stage = Stage::decode;
  for (Sequence* sequence : candidates(Stage::decode)) {
    if (planned.work.size() == limits_.max_batch) break;
    add_rows(planned, *sequence, 1);
  }
  return planned;
}

// In order; but who would compute the page that another before it computes now waits for that, and
// takes the page over.
Batcher::Planned Batcher::plan_prefill() {
  Planned planned;
  planned.launch.stage = Stage::prefill;
  auto candidates = this->candidates(Stage::prefill);
  // Without a decode kernel the next tokens come from here too, and go before prompts.
  std::ranges::stable_partition(candidates, [](const Sequence* s) { return s->remaining() == 1; });
  uint32_t room = prefill_rows();
  for (Sequence* sequence : candidates) {
    if (room == 0) break;
    count_reused(*sequence, reuse_pages(*sequence));
    if (goes_to_decode(*sequence)) continue;
    const bool follows = sequence->computed() == sequence->pages.shared() * limits_.page_tokens &&
                         sequence->reusable_pages(limits_.page_tokens) > sequence->pages.shared() &&
                         std::ranges::any_of(planned.work, [&](const Work& work) {
                           const Sequence& leader = *work.sequence;
                           return cache_.same_next_page(leader.pages, leader.tokens(),
                                                        sequence->pages, sequence->tokens());
                         });
    if (follows) continue;
    if (!add_rows(planned, *sequence, std::min(sequence->remaining(), room))) break;
    room -= planned.work.back().rows;
  }
  return planned;
}

// Rows of the next prefill launch. Where there is no decode kernel, next tokens wait for it, which
// sets a limit to its time; elsewhere it is as long as the card likes it best.
uint32_t Batcher::prefill_rows() const {
  const uint32_t most = std::min(options_.prefill_chunk, limits_.max_prefill_rows);
  if (options_.prefill_target.count() == 0 || limits_.max_batch > 0 || running_.size() < 2) {
    return most;
  }
  double rows = kFirstRows;
  if (prefill_ns_per_row_ > 0) {
    const std::chrono::nanoseconds target = options_.prefill_target;
    rows = static_cast<double>(target.count()) / prefill_ns_per_row_;
  }
  if (rows >= most) return most;
  // Whole steps, so that a chunk ends where a page does.
  return std::min(most,
                  std::max(kLeastRows, static_cast<uint32_t>(rows) / kLeastRows * kLeastRows));
}

// Adds up to `rows` rows, fewer if the launch has no more room for logits. False: none.
bool Batcher::add_rows(Planned& planned, Sequence& sequence, uint32_t rows) {
  host::Launch& launch = planned.launch;
  Work work{.sequence = &sequence, .first_row = static_cast<uint32_t>(launch.rows.size())};
  const auto tokens = sequence.tokens();
  for (uint32_t i = 0; i < rows; ++i) {
    const uint32_t position = sequence.computed() + i;
    const bool last = position + 1 == tokens.size();
    host::Row row;
    row.sequence = static_cast<uint32_t>(launch.sequences.size());
    row.position = position;
    row.token = tokens[position];
    if (sequence.wants_prompt_logprob(position)) {
      row.outputs.target_logprob = true;
      row.outputs.row_result = sequence.alternatives() > 0;
      row.target = tokens[position + 1];
    }
    if (last && sequence.wants_tokens()) row.outputs.row_result = true;
    const bool wants_logits = row.outputs.row_result || row.outputs.target_logprob;
    if (wants_logits && launch.stage == Stage::prefill) {
      if (planned.logits_rows == limits_.max_logits_rows) break;
      ++planned.logits_rows;
    }
    launch.rows.push_back(row);
    ++work.rows;
    work.samples = last;
  }
  if (work.rows == 0) return false;
  launch.sequences.emplace_back(sequence.pages.pages());
  planned.work.push_back(work);
  return true;
}

std::optional<Batcher::Fault> Batcher::collect(Planned& planned, const host::LaunchResult& result) {
  const Stage stage = planned.launch.stage;
  const auto ns = static_cast<uint64_t>(result.kernel_time.count());
  if (stage == Stage::decode) {
    ++metrics_->decode_launches;
    metrics_->decode_kernel_ns += ns;
    metrics_->batch_size.observe(static_cast<double>(planned.work.size()));
  } else {
    ++metrics_->prefill_launches;
    metrics_->prefill_kernel_ns += ns;
    const auto rows = static_cast<double>(planned.launch.rows.size());
    if (rows >= kLeastRows) {
      const double row_ns = static_cast<double>(ns) / rows;
      prefill_ns_per_row_ = prefill_ns_per_row_ == 0
                                ? row_ns
                                : (1 - kNewest) * prefill_ns_per_row_ + kNewest * row_ns;
    }
  }
  for (const auto& work : planned.work) {
    Sequence& sequence = *work.sequence;
    for (uint32_t i = 0; i < work.rows; ++i) {
      const uint32_t position = sequence.computed() + i;
      if (sequence.wants_prompt_logprob(position)) {
        sequence.add_prompt_logprob(position, result.rows[work.first_row + i]);
      }
    }
    if (work.samples && !sequence.job().ended) {
      auto fault = take_token(sequence, stage, work, result.rows[work.first_row + work.rows - 1]);
      if (fault) return fault;
    } else {
      sequence.advance(work.rows);
    }
    cache_.insert(sequence.pages, sequence.tokens(), sequence.computed() / limits_.page_tokens);
  }
  return std::nullopt;
}

std::optional<Batcher::Fault> Batcher::take_token(Sequence& sequence, Stage stage, const Work& work,
                                                  const host::RowOutput& row) {
  std::optional<FinishReason> finish = FinishReason::length;
  if (sequence.wants_tokens()) {
    auto choice = sample(sequence, stage, work.first_row + work.rows - 1, row);
    if (!choice) return Fault{choice.error(), {work}};
    sequence.begin();
    finish = sequence.accept(*choice);
  } else {
    sequence.begin();
  }
  sequence.advance(work.rows);
  deliver(sequence, finish);
  return std::nullopt;
}

tl::expected<host::Choice, host::DeviceError> Batcher::sample(Sequence& sequence, Stage stage,
                                                              uint32_t row,
                                                              const host::RowOutput& output) {
  host::Sampler& sampler = sequence.sampler();
  std::vector<float> logits;
  if (sampler.needs_logits()) {
    auto fetched = backend_->logits(stage, row);
    if (!fetched) return tl::unexpected(fetched.error());
    logits = std::move(*fetched);
  }
  auto choice = sampler.sample(output, logits, sequence.alternatives());
  if (choice) return *choice;
  auto fetched = backend_->logits(stage, row);
  if (!fetched) return tl::unexpected(fetched.error());
  choice = sampler.sample(output, *fetched, sequence.alternatives());
  if (!choice) throw std::logic_error("the sampler refused a full row of logits");
  return *choice;
}

void Batcher::deliver(Sequence& sequence, std::optional<FinishReason> finish) {
  Job& job = sequence.job();
  const auto now = events_.now();
  if (sequence.wants_tokens()) {
    ++metrics_->generated_tokens;
    auto seconds = [&](TimePoint since) {
      return std::chrono::duration<double>(now - since).count();
    };
    if (sequence.last_token) {
      metrics_->inter_token_s.observe(seconds(*sequence.last_token));
    } else {
      metrics_->first_token_s.observe(seconds(job.submitted));
    }
    sequence.last_token = now;
  }
  if (!job.first_token) job.first_token = now;
  Delta delta = sequence.take(finish);
  if (finish && job.open_choices == 1) {
    delta.timings = Timings{.queue = job.placed - job.submitted,
                            .prompt = *job.first_token - job.placed,
                            .predicted = now - *job.first_token,
                            .usage = job.usage};
  }
  if (!delta.text.empty() || !delta.tokens.empty() || finish) {
    if (!job.results->push(std::move(delta))) {
      fail(job, unavailable("The answer was read too slowly.", "slow_reader"));
      return;
    }
  }
  if (!finish) return;
  sequence.done = true;
  ++(*finish == FinishReason::stop ? metrics_->finished_stop : metrics_->finished_length);
  metrics_->output_length.observe(sequence.generated());
  if (--job.open_choices == 0) {
    job.results->push(Finished{job.usage});
    end(job);
  }
}

// A failed launch leaves the card usable, and only those that were part of it are computed again
// from their tokens, which gives the same text; after anything else the card starts afresh, and
// all are. Those that fail in the same place often enough are given up. One such request is its
// own fault, but two without a good launch between them are the card's.
void Batcher::handle(const Fault& fault) {
  ++metrics_->device_errors;
  spdlog::warn("scheduler: {}: {}", host::to_string(fault.error.kind), fault.error.message);
  for (const Work& work : fault.blamed) {
    Sequence& sequence = *work.sequence;
    sequence.fail(work.rows);
    if (options_.trace) {
      options_.trace->instant(Trace::of_request(sequence.job().arrival), "fault", events_.now());
    }
    if (sequence.job().ended) continue;
    if (sequence.faults() > options_.max_faults) {
      fail(sequence.job(), unavailable("The accelerator failed this request.", "device_error"));
      ++given_up_;
    }
    suspend(sequence, PageCache::Keep::no);
  }
  if (!fault.leaves_usable() || given_up_ > 1) recover();
}

}  // namespace flexllm::server
