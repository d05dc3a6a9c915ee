// Chooses the next token from a row result. Deterministic: the same parameters, seed and logits
// give the same tokens whatever else the server does. One Sampler per choice of a request; not
// thread-safe.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "host/engine.h"

namespace flexllm::host {

struct SamplingParams {
  float temperature = 1.0f;  // 0: greedy
  float top_p = 1.0f;        // 1: off
  uint32_t top_k = 0;        // 0: off
  float min_p = 0.0f;        // 0: off
  float presence_penalty = 0.0f;
  float frequency_penalty = 0.0f;
  float repetition_penalty = 1.0f;
  std::map<uint32_t, float> logit_bias;  // added to logits; -100 bans
  std::vector<uint32_t> banned;          // never chosen (min_tokens, ignore_eos)
  uint64_t seed = 0;
};

struct TokenLogprob {
  uint32_t token = 0;
  float logprob = 0;  // natural log, of the model's distribution before sampling parameters
};

struct Choice {
  uint32_t token = 0;
  float logprob = 0;
  std::vector<TokenLogprob> top;  // the `top_logprobs` largest, descending
};

class Sampler {
 public:
  // `prompt` counts for the repetition penalty.
  Sampler(SamplingParams params, std::span<const uint32_t> prompt);

  // True if sample() needs the full logits row and not only the row result.
  bool needs_logits() const;
  // `logits` is empty unless needed: see needs_logits(). It is also needed when the nucleus may
  // reach beyond the 64 largest; then sample() returns nullopt and must be called again with it.
  std::optional<Choice> sample(const RowOutput& row, std::span<const float> logits,
                               uint32_t top_logprobs);
  // Bans for the next sample only (for instance end-of-text before min_tokens).
  void ban_next(std::span<const uint32_t> tokens);

 private:
  SamplingParams params_;
  std::map<uint32_t, uint32_t> counts_;  // of generated tokens
  std::vector<uint32_t> prompt_tokens_;  // sorted, distinct
  std::vector<uint32_t> banned_next_;
  uint64_t state_;
};

}  // namespace flexllm::host
