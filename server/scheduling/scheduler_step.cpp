// One turn of the card: plan, launch both stages, sample, deliver.
#include <spdlog/spdlog.h>

#include <algorithm>
#include <stdexcept>
#include <utility>

#include "server/scheduling/scheduler.h"

namespace flexllm::server {

using host::Stage;

// Both launches are started before either is waited for, and nothing is sampled before both have
// ended: logits stay valid until the next start.
void Scheduler::step() {
  Planned decode = plan(Stage::decode);
  Planned prefill = plan(Stage::prefill);
  std::vector<Fault> faults;
  auto usable = [&] { return faults.empty() || faults.back().leaves_usable(); };
  for (Planned* planned : {&decode, &prefill}) {
    if (!usable()) break;
    if (auto fault = start(*planned)) faults.push_back(std::move(*fault));
  }
  std::vector<std::pair<Planned*, host::LaunchResult>> results;
  for (Planned* planned : {&decode, &prefill}) {
    if (!planned->started) continue;
    auto result = backend_->wait(planned->launch.stage);
    if (result) {
      results.emplace_back(planned, std::move(*result));
    } else if (usable()) {
      faults.push_back({result.error(), planned->work});
    }
  }
  for (auto& [planned, result] : results) {
    if (!usable()) break;
    given_up_ = 0;
    if (auto fault = collect(*planned, result)) faults.push_back(std::move(*fault));
  }
  handle(faults);
}

bool Scheduler::goes_to_decode(const Sequence& sequence) const {
  if (limits_.max_prefill_rows == 0) return true;
  return limits_.max_batch > 0 && sequence.remaining() == 1;
}

Scheduler::Planned Scheduler::plan(Stage stage) {
  Planned planned;
  planned.launch.stage = stage;
  const bool decode = stage == Stage::decode;
  uint32_t room =
      decode ? limits_.max_batch : std::min(options_.prefill_chunk, limits_.max_prefill_rows);
  std::vector<Sequence*> candidates;
  for (auto& sequence : running_) {
    if (goes_to_decode(*sequence) == decode) candidates.push_back(sequence.get());
  }
  const auto suspect = std::find_if(candidates.begin(), candidates.end(),
                                    [](const Sequence* s) { return s->faults() > 0; });
  if (suspect != candidates.end()) candidates = {*suspect};
  for (Sequence* sequence : candidates) {
    if (room == 0) break;
    const uint32_t rows = decode ? 1 : std::min(sequence->remaining(), room);
    if (!add_rows(planned, *sequence, rows)) break;
    room -= planned.work.back().rows;
  }
  return planned;
}

// Adds up to `rows` rows, fewer if the launch has no more room for logits. False: none.
bool Scheduler::add_rows(Planned& planned, Sequence& sequence, uint32_t rows) {
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
  launch.sequences.emplace_back(sequence.pages);
  planned.work.push_back(work);
  return true;
}

std::optional<Scheduler::Fault> Scheduler::start(Planned& planned) {
  if (planned.work.empty()) return std::nullopt;
  try {
    auto started = backend_->start(planned.launch);
    if (!started) {
      return Fault{started.error(), planned.work};
    }
    planned.started = true;
  } catch (const std::invalid_argument& error) {
    // The launch is not one that the engine takes: our mistake, and only these requests pay for it.
    spdlog::error("scheduler: {}", error.what());
    for (const auto& work : planned.work) fail(work.sequence->job(), internal_error());
  }
  return std::nullopt;
}

std::optional<Scheduler::Fault> Scheduler::collect(Planned& planned,
                                                   const host::LaunchResult& result) {
  const Stage stage = planned.launch.stage;
  const auto ns = static_cast<uint64_t>(result.kernel_time.count());
  if (stage == Stage::decode) {
    ++metrics_->decode_launches;
    metrics_->decode_kernel_ns += ns;
    metrics_->batch_size.observe(static_cast<double>(planned.work.size()));
  } else {
    ++metrics_->prefill_launches;
    metrics_->prefill_kernel_ns += ns;
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
      std::optional<FinishReason> finish;
      if (sequence.wants_tokens()) {
        const uint32_t row = work.first_row + work.rows - 1;
        auto choice = sample(sequence, stage, row, result.rows[row]);
        if (!choice) return Fault{choice.error(), {work}};
        sequence.begin();
        finish = sequence.accept(*choice);
      } else {
        sequence.begin();
        finish = FinishReason::length;
      }
      sequence.advance(work.rows);
      deliver(sequence, finish);
    } else {
      sequence.advance(work.rows);
    }
  }
  return std::nullopt;
}

tl::expected<host::Choice, host::DeviceError> Scheduler::sample(Sequence& sequence, Stage stage,
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

void Scheduler::deliver(Sequence& sequence, std::optional<FinishReason> finish) {
  Job& job = sequence.job();
  const auto now = Clock::now();
  if (sequence.wants_tokens()) {
    ++metrics_->generated_tokens;
    auto seconds = [&](Clock::time_point since) {
      return std::chrono::duration<double>(now - since).count();
    };
    if (sequence.last_token) {
      metrics_->inter_token_s.observe(seconds(*sequence.last_token));
    } else {
      metrics_->first_token_s.observe(seconds(job.submitted));
    }
    sequence.last_token = now;
  }
  Delta delta = sequence.take(finish);
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
void Scheduler::handle(const std::vector<Fault>& faults) {
  bool usable = true;
  for (const Fault& fault : faults) {
    ++metrics_->device_errors;
    spdlog::warn("scheduler: {}: {}", host::to_string(fault.error.kind), fault.error.message);
    usable = usable && fault.leaves_usable();
    for (const Work& work : fault.blamed) {
      Sequence& sequence = *work.sequence;
      sequence.fail(work.rows);
      if (sequence.faults() <= options_.max_faults || sequence.job().ended) continue;
      fail(sequence.job(), unavailable("The accelerator failed this request.", "device_error"));
      ++given_up_;
    }
  }
  if (!usable || given_up_ > 1) recover();
}

}  // namespace flexllm::server
