#include "server/scheduling/sequence.h"

#include <algorithm>
#include <tuple>
#include <utility>

namespace flexllm::server {
namespace {

host::SamplingParams sampling_of(const GenerationRequest& request, uint32_t choice) {
  host::SamplingParams params = request.sampling;
  // Each of the n choices draws from a stream of its own; the first from the seed itself.
  params.seed += 0x9E3779B97F4A7C15ull * (choice % request.n);
  return params;
}

}  // namespace

Sequence::Sequence(std::shared_ptr<Job> job, uint32_t choice, uint32_t max_tokens,
                   const TextModel& text)
    : job_(std::move(job)),
      text_model_(text),
      choice_(choice),
      max_tokens_(max_tokens),
      prompt_(static_cast<uint32_t>(job_->request.prompts[choice / job_->request.n].size())),
      text_(job_->request.stop) {}

std::span<const uint32_t> Sequence::prompt() const {
  return job_->request.prompts[choice_ / job_->request.n];
}

void Sequence::enter() {
  if (!tokens_.empty()) return;
  tokens_.assign(prompt().begin(), prompt().end());
  sampler_.emplace(sampling_of(job_->request, choice_), tokens_);
  if (job_->request.grammar) matcher_.emplace(job_->request.grammar);
}

bool Sequence::before(const Sequence& other) const {
  auto key = [](const Sequence& s) {
    const Job& job = *s.job_;
    return std::tuple(!job.overdue, job.overdue ? 0 : job.request.priority,
                      job.overdue ? 0 : job.fair_tag, job.arrival, s.choice_);
  };
  return key(*this) < key(other);
}

void Sequence::fail(uint32_t rows) {
  ++faults_;
  failed_end_ = std::max(failed_end_, computed_ + rows);
}

uint32_t Sequence::reusable_pages(uint32_t page_tokens) const {
  const Job& job = *job_;
  const bool logprobs_missing =
      job.request.echo && job.request.logprobs && prompt_records_.size() + 1 < prompt_;
  return logprobs_missing ? 0 : (length() - 1) / page_tokens;
}

bool Sequence::wants_prompt_logprob(uint32_t position) const {
  return job_->request.echo && job_->request.logprobs && position + 1 < prompt_ &&
         position >= prompt_records_.size();
}

void Sequence::add_prompt_logprob(uint32_t position, const host::RowOutput& row) {
  TokenRecord record{
      .token = tokens_[position + 1], .logprob = row.target_logprob, .text_offset = 0, .top = {}};
  const size_t wanted = std::min<size_t>(alternatives(), row.top_ids.size());
  for (size_t i = 0; i < wanted; ++i) {
    record.top.push_back({row.top_ids[i], row.top_logits[i] - row.log_sum_exp});
  }
  prompt_records_.push_back(std::move(record));
}

void Sequence::begin() {
  if (generated() > 0 || !job_->request.echo) return;
  tokenizer::Utf8Assembler utf8;
  std::vector<TokenRecord> records;
  size_t known = 0;  // bytes of `ready_` whose characters are counted
  auto count = [&] {
    echo_characters_ += characters(std::string_view(ready_).substr(known));
    known = ready_.size();
  };
  for (uint32_t i = 0; i < prompt_; ++i) {
    TokenRecord record{.token = tokens_[i], .logprob = {}, .text_offset = 0, .top = {}};
    if (i > 0 && i <= prompt_records_.size()) record = std::move(prompt_records_[i - 1]);
    record.text_offset = echo_characters_;
    utf8.push(text_model_.token_bytes(tokens_[i]), ready_);
    count();
    records.push_back(std::move(record));
  }
  utf8.finish(ready_);
  count();
  if (!job_->request.logprobs) return;
  for (auto& record : records) pending_.push_back({std::move(record), 0});
}

host::Sampler& Sequence::sampler() {
  if (generated() < job_->request.min_tokens) {
    std::vector<uint32_t> banned = text_model_.end_tokens();
    const auto& stop = job_->request.stop_token_ids;
    banned.insert(banned.end(), stop.begin(), stop.end());
    sampler_->ban_next(banned);
  }
  if (matcher_) {
    std::vector<uint32_t> ends;
    const bool early = generated() < job_->request.min_tokens;
    if (matcher_->may_end() && !early && !job_->request.ignore_eos) ends = text_model_.end_tokens();
    sampler_->allow_next(matcher_->allowed(), ends);
  }
  return *sampler_;
}

bool Sequence::ends(uint32_t token) const {
  const auto& stop = job_->request.stop_token_ids;
  if (std::find(stop.begin(), stop.end(), token) != stop.end()) return true;
  const auto& end = text_model_.end_tokens();
  return !job_->request.ignore_eos && std::binary_search(end.begin(), end.end(), token);
}

std::optional<FinishReason> Sequence::accept(const host::Choice& choice) {
  tokens_.push_back(choice.token);
  ++job_->usage.completion_tokens;
  if (ends(choice.token)) return FinishReason::stop;
  const bool goes_on = !matcher_ || (matcher_->accept(text_model_.token_bytes(choice.token)) &&
                                     !matcher_->finished());
  const size_t offset = echo_characters_ + text_.known_characters();
  ready_ +=
      text_.append(text_model_.token_bytes(choice.token), generated() >= job_->request.min_tokens);
  if (job_->request.logprobs) {
    pending_.push_back({{.token = choice.token,
                         .logprob = choice.logprob,
                         .text_offset = offset,
                         .top = choice.top},
                        text_.known_characters()});
  }
  if (text_.stopped() || !goes_on) return FinishReason::stop;
  if (generated() >= max_tokens_) return FinishReason::length;
  return std::nullopt;
}

Delta Sequence::take(std::optional<FinishReason> finish) {
  Delta delta{.choice = choice_,
              .text = std::exchange(ready_, {}),
              .tokens = {},
              .finish = finish,
              .timings = {}};
  if (finish) delta.text += text_.finish();
  const size_t shown = echo_characters_ + text_.shown_characters();
  auto next = pending_.begin();
  for (; next != pending_.end(); ++next) {
    // A token goes out with the last of its text. At the end all go, but for those whose text
    // belongs to the stop string.
    const bool whole = echo_characters_ + next->end <= shown;
    if (!whole && !(finish && next->record.text_offset < shown)) break;
    if (finish && text_.stopped() && next->record.text_offset >= shown) break;
    delta.tokens.push_back(std::move(next->record));
  }
  pending_.erase(pending_.begin(), next);
  return delta;
}

}  // namespace flexllm::server
