// Chooses the next token from a row result. Deterministic: the same parameters, seed and logits
// give the same tokens, whatever else the server does and whether the choice was made from the row
// result or from the full logits. One Sampler per choice of a request; not thread-safe.
//
// The order of things: the allowed tokens; repetition, frequency and presence penalties,
// logit_bias, bans; then temperature; then the cut-offs top_k, min_p (relative to the most likely
// token) and top_p (of what the other two left); then one draw from what is left, most likely
// tokens first.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "host/engine.h"

namespace flexllm::host {

struct SamplingParams {
  float temperature = 1.0f;  // below 1e-5: greedy
  float top_p = 1.0f;        // 1: off
  uint32_t top_k = 0;        // 0: off
  float min_p = 0.0f;        // 0: off
  float presence_penalty = 0.0f;
  float frequency_penalty = 0.0f;
  float repetition_penalty = 1.0f;
  std::map<uint32_t, float> logit_bias;  // added to logits; -100 and below ban
  std::vector<uint32_t> banned;          // never chosen (ignore_eos)
  uint64_t seed = 0;
};

struct TokenLogprob {
  uint32_t token = 0;
  float logprob = 0;  // natural log, of the model's distribution before sampling parameters
};

struct Choice {
  uint32_t token = 0;
  float logprob = 0;
  std::vector<TokenLogprob> top;  // the `top_logprobs` largest (64 at most), descending
};

// A set of tokens. One that is beyond the words is not in it.
struct AllowedTokens {
  std::vector<uint64_t> words;  // bit t % 64 of words[t / 64]
  uint32_t count = 0;           // bits that are set
  bool contains(uint32_t token) const {
    return token / 64 < words.size() && (words[token / 64] >> (token % 64) & 1) != 0;
  }
};

class Sampler {
 public:
  // `prompt` counts for the repetition penalty.
  Sampler(SamplingParams params, std::span<const uint32_t> prompt);

  // True if every choice needs the full logits row, because something may raise a token that is
  // not among the 64 largest.
  bool needs_logits() const { return needs_logits_; }

  // `logits` is the full row, or empty: then the choice is made from the row result. Where that
  // does not settle it (needs_logits(), or the nucleus or the draw may reach beyond the 64 largest)
  // the answer is nullopt, nothing has changed, and the call must be repeated with the logits. If
  // every token is banned the choice is the model's arg-max, among the allowed tokens if a set of
  // them was given.
  std::optional<Choice> sample(const RowOutput& row, std::span<const float> logits,
                               uint32_t top_logprobs);

  // Bans for the next choice only (for instance end-of-text before min_tokens).
  void ban_next(std::span<const uint32_t> tokens);
  // The next choice is one of `tokens` or of `also`, whatever else would rather have another. One
  // of them must be a token of the model.
  void allow_next(std::shared_ptr<const AllowedTokens> tokens, std::span<const uint32_t> also);

 private:
  struct Candidates;

  std::vector<uint32_t> touched() const;
  size_t touched_at_most() const;
  bool allowed(uint32_t token) const;
  float adjusted(uint32_t token, float logit) const;
  Candidates candidates(const RowOutput& row) const;
  std::optional<size_t> pick(const Candidates& candidates) const;
  std::optional<uint32_t> choose(const RowOutput& row) const;
  uint32_t choose(const RowOutput& row, std::span<const float> logits) const;
  uint32_t fallback(const RowOutput& row, std::span<const float> logits) const;

  SamplingParams params_;
  std::map<uint32_t, uint32_t> counts_;                // of chosen tokens
  std::vector<uint32_t> prompt_;                       // sorted, distinct
  std::vector<uint32_t> banned_;                       // sorted
  std::vector<uint32_t> banned_next_;                  // sorted
  std::shared_ptr<const AllowedTokens> allowed_next_;  // nullptr: all
  std::vector<uint32_t> allowed_also_;                 // sorted; not in `allowed_next_`
  bool needs_logits_;
  uint64_t step_ = 0;
};

}  // namespace flexllm::host
