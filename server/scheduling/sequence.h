// One choice of a request on its way through the card: its tokens, its pages, how far the card has
// come, and what its reader has been shown. Used by the scheduler's thread only.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "host/engine.h"
#include "host/sampler.h"
#include "server/scheduling/generation.h"
#include "server/scheduling/page_cache.h"
#include "server/telemetry/metrics.h"
#include "server/text/text_model.h"
#include "server/text/text_stream.h"

namespace flexllm::server {

// A request that the scheduler has taken: what its choices share.
struct Job {
  GenerationRequest request;
  std::shared_ptr<ResultQueue> results;
  uint64_t arrival = 0;  // order of arrival
  double fair_tag = 0;   // FairClock
  double fair_cost = 0;  // tokens that it was expected to take
  bool overdue = false;  // has waited so long that it goes first
  std::chrono::steady_clock::time_point submitted;
  std::chrono::steady_clock::time_point placed;  // when it was started
  std::optional<std::chrono::steady_clock::time_point> first_token;
  uint32_t open_choices = 0;
  bool started = false;  // one of its choices has had a slot
  bool ended = false;    // its final event is sent; what it holds is about to be freed
  Usage usage;
};

class Sequence {
 public:
  // `max_tokens` is what the request asks for, cut to what the context leaves.
  Sequence(std::shared_ptr<Job> job, uint32_t choice, uint32_t max_tokens, const TextModel& text);

  Job& job() { return *job_; }
  const Job& job() const { return *job_; }
  // Called when it gets a slot: until the first time it holds no tokens of its own, so that what
  // waits is small.
  void enter();
  // Prompt and what was generated.
  std::span<const uint32_t> tokens() const { return tokens_.empty() ? prompt() : tokens_; }
  uint32_t length() const {
    return tokens_.empty() ? prompt_ : static_cast<uint32_t>(tokens_.size());
  }
  // Positions whose keys and values the card does not have yet; 1 when ready to decode.
  uint32_t remaining() const { return length() - computed_; }
  uint32_t computed() const { return computed_; }
  uint32_t generated() const { return length() - prompt_; }
  uint32_t prompt_size() const { return prompt_; }
  // Whether it goes before `other`: those that are overdue first, in order of arrival; then by
  // priority, fair share, arrival, and place in their request.
  bool before(const Sequence& other) const;
  void advance(uint32_t rows) {
    computed_ += rows;
    if (computed_ >= failed_end_) faults_ = failed_end_ = 0;
  }
  // Its pages were given back.
  void restart() {
    computed_ = 0;
    resumed_ = true;
  }
  bool resumed() const { return resumed_; }  // restarted at least once
  // Positions before this one are in pages that it took over.
  void skip_to(uint32_t position) { computed_ = position; }
  void count_reused(uint32_t positions) {
    if (choice_ % job_->request.n == 0) job_->usage.cached_tokens += positions;
  }
  // How many pages it may take over: not that of its last token, whose logits are wanted, and none
  // while log-probabilities of its prompt are.
  uint32_t reusable_pages(uint32_t page_tokens) const;
  // The card failed a launch of its next `rows` rows.
  void fail(uint32_t rows);
  // Launches of it that failed since it last got past the place where one did. While there are any
  // it is a suspect and is launched alone, so that those beside the culprit are not blamed again.
  uint32_t faults() const { return faults_; }

  // Whether the row at `position` must bring the log-probability of the token after it.
  bool wants_prompt_logprob(uint32_t position) const;
  void add_prompt_logprob(uint32_t position, const host::RowOutput& row);

  // What is to be shown before the first token: the echo of the prompt, if asked for.
  void begin();
  // Prepares `sampler` for the next token.
  host::Sampler& sampler();
  uint32_t alternatives() const { return job_->request.logprobs.value_or(0); }
  // Takes the sampled token. A reason means that the choice has ended.
  std::optional<FinishReason> accept(const host::Choice& choice);
  // A choice of zero tokens ends as soon as its prompt is computed.
  bool wants_tokens() const { return max_tokens_ > 0; }
  // What may be shown since the last call; with a reason, everything that will ever be.
  Delta take(std::optional<FinishReason> finish);

  PageCache::Table pages;
  bool in_flight = false;  // part of a launch that has not ended
  bool done = false;       // its last delta is sent
  std::optional<std::chrono::steady_clock::time_point> last_token;

 private:
  // A token whose text may still be held back.
  struct Pending {
    TokenRecord record;
    size_t end = 0;  // characters of generated text up to and with it
  };
  bool ends(uint32_t token) const;
  std::span<const uint32_t> prompt() const;

  std::shared_ptr<Job> job_;
  const TextModel& text_model_;
  const uint32_t choice_;
  const uint32_t max_tokens_;
  const uint32_t prompt_;
  std::vector<uint32_t> tokens_;
  uint32_t computed_ = 0;
  bool resumed_ = false;
  uint32_t faults_ = 0;
  uint32_t failed_end_ = 0;  // position after the last row of a launch that failed
  std::optional<host::Sampler> sampler_;
  std::optional<grammar::Matcher> matcher_;  // the place of its text in the grammar
  TextStream text_;
  size_t echo_characters_ = 0;
  std::string ready_;                        // text that may be shown, not yet taken
  std::vector<Pending> pending_;             // records not yet taken
  std::vector<TokenRecord> prompt_records_;  // of the second prompt token and on
};

}  // namespace flexllm::server
