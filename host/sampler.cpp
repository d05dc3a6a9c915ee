#include "host/sampler.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

namespace flexllm::host {
namespace {

constexpr float kMinusInfinity = -std::numeric_limits<float>::infinity();
constexpr float kGreedyTemperature = 1e-5f;
constexpr float kBan = -100.0f;

// What the row result leaves open: the largest vocabulary of the contract, and the relative error
// of exp(log-sum-exp). 64 interleaved binary32 sums of 2^18 terms err by at most 2^12 roundings of
// 2^-24; the rest is for exp, log and the rounding of the result (docs/numerics.md).
constexpr double kLargestVocabulary = 262144.0;
constexpr double kSumError = 3e-4;

// One of 2^53 equidistant numbers in [0, 1): a counter-based generator (SplitMix64 finaliser,
// Steele et al. 2014) of seed and step.
double uniform(uint64_t seed, uint64_t step) {
  const auto mix = [](uint64_t z) {
    z += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
  };
  return static_cast<double>(mix(seed ^ mix(step)) >> 11) * 0x1p-53;
}

bool contains(const std::vector<uint32_t>& sorted, uint32_t token) {
  return std::binary_search(sorted.begin(), sorted.end(), token);
}

void sort_distinct(std::vector<uint32_t>& tokens) {
  std::sort(tokens.begin(), tokens.end());
  tokens.erase(std::unique(tokens.begin(), tokens.end()), tokens.end());
}

struct Scored {
  float logit;
  uint32_t token;

  // More likely first; equal logits by ascending id.
  bool operator<(const Scored& other) const {
    return logit != other.logit ? logit > other.logit : token < other.token;
  }
};

// The first element of an ascending row that is at least (or more than) `value`.
size_t first_at_least(std::span<const double> row, double value) {
  return static_cast<size_t>(std::lower_bound(row.begin(), row.end(), value) - row.begin());
}
size_t first_above(std::span<const double> row, double value) {
  return static_cast<size_t>(std::upper_bound(row.begin(), row.end(), value) - row.begin());
}

}  // namespace

// The most likely tokens in order, and what is known of all others. Weights are relative to the
// first candidate, at the sampling temperature.
struct Sampler::Candidates {
  std::vector<Scored> known;
  double temperature = 1;
  double tail_low = 0;  // the sum of the others' weights lies in [tail_low, tail_high]
  double tail_high = 0;
  double tail_peak = 0;   // none of the others weighs more
  bool complete = false;  // there are no others

  double weight(float logit) const {
    return std::exp((static_cast<double>(logit) - static_cast<double>(known[0].logit)) /
                    temperature);
  }
};

Sampler::Sampler(SamplingParams params, std::span<const uint32_t> prompt)
    : params_(std::move(params)),
      prompt_(prompt.begin(), prompt.end()),
      banned_(params_.banned),
      needs_logits_(params_.presence_penalty < 0 || params_.frequency_penalty < 0 ||
                    params_.repetition_penalty < 1) {
  sort_distinct(prompt_);
  sort_distinct(banned_);
  for (const auto& [token, bias] : params_.logit_bias) needs_logits_ |= bias > 0;
}

void Sampler::ban_next(std::span<const uint32_t> tokens) {
  banned_next_.insert(banned_next_.end(), tokens.begin(), tokens.end());
  sort_distinct(banned_next_);
}

void Sampler::allow_next(std::shared_ptr<const AllowedTokens> tokens,
                         std::span<const uint32_t> also) {
  allowed_next_ = std::move(tokens);
  allowed_also_.assign(also.begin(), also.end());
  sort_distinct(allowed_also_);
  std::erase_if(allowed_also_, [&](uint32_t token) { return allowed_next_->contains(token); });
}

bool Sampler::allowed(uint32_t token) const {
  return allowed_next_ == nullptr || allowed_next_->contains(token) ||
         contains(allowed_also_, token);
}

// Every token whose logit the parameters may change.
std::vector<uint32_t> Sampler::touched() const {
  std::vector<uint32_t> tokens(banned_);
  tokens.insert(tokens.end(), banned_next_.begin(), banned_next_.end());
  for (const auto& [token, bias] : params_.logit_bias) tokens.push_back(token);
  const bool repetition = params_.repetition_penalty != 1;
  if (repetition) tokens.insert(tokens.end(), prompt_.begin(), prompt_.end());
  if (repetition || params_.presence_penalty != 0 || params_.frequency_penalty != 0) {
    for (const auto& [token, count] : counts_) tokens.push_back(token);
  }
  sort_distinct(tokens);
  return tokens;
}

size_t Sampler::touched_at_most() const {
  return banned_.size() + banned_next_.size() + params_.logit_bias.size() + counts_.size() +
         (params_.repetition_penalty != 1 ? prompt_.size() : 0);
}

float Sampler::adjusted(uint32_t token, float logit) const {
  if (contains(banned_, token) || contains(banned_next_, token)) return kMinusInfinity;
  const auto count = counts_.find(token);
  if (params_.repetition_penalty != 1 && (count != counts_.end() || contains(prompt_, token))) {
    logit = logit > 0 ? logit / params_.repetition_penalty : logit * params_.repetition_penalty;
  }
  if (count != counts_.end()) {
    logit -=
        params_.frequency_penalty * static_cast<float>(count->second) + params_.presence_penalty;
  }
  const auto bias = params_.logit_bias.find(token);
  if (bias == params_.logit_bias.end()) return logit;
  return bias->second > kBan ? logit + bias->second : kMinusInfinity;
}

// What a row result says about the adjusted distribution, when adjustments only lower logits.
Sampler::Candidates Sampler::candidates(const RowOutput& row) const {
  Candidates out;
  out.temperature = static_cast<double>(params_.temperature);
  if (row.top_logits.empty()) return out;
  const double max = static_cast<double>(row.max);
  const float floor = row.top_logits.back();
  out.complete = row.top_logits.size() < 64 || floor == kMinusInfinity;

  // A token that was lowered to the floor or below may stand behind tokens that are not known.
  std::vector<float> dropped;
  bool lowered = false;
  double known_sum = 0;
  size_t known_allowed = 0;
  for (size_t i = 0; i < row.top_ids.size(); ++i) {
    known_sum += std::exp(static_cast<double>(row.top_logits[i]) - max);
    if (!allowed(row.top_ids[i])) continue;
    ++known_allowed;
    const float logit = adjusted(row.top_ids[i], row.top_logits[i]);
    lowered |= logit != row.top_logits[i];
    if (logit > kMinusInfinity) out.known.push_back({logit, row.top_ids[i]});
  }
  std::sort(out.known.begin(), out.known.end());
  out.complete |= allowed_next_ && known_allowed == allowed_next_->count + allowed_also_.size();
  if (out.complete) return out;
  while (lowered && !out.known.empty() && !(out.known.back().logit > floor)) {
    dropped.push_back(out.known.back().logit);
    out.known.pop_back();
  }
  if (out.known.empty()) return out;

  // The others' sum at temperature 1, in units of the floor: y_i = exp(x_i - floor) <= 1.
  const double unit = std::exp(static_cast<double>(floor) - max);
  out.tail_peak = out.weight(floor);
  if (unit > 0 && out.tail_peak > 0) {
    const double all = std::exp(static_cast<double>(row.log_sum_exp) - max);
    const double rest = all - known_sum;
    const double error = kSumError * all;
    const double high = std::min(std::max(rest + error, 0.0) / unit, kLargestVocabulary);
    // Any number of the others may not be allowed.
    const double low =
        allowed_next_
            ? 0.0
            : std::max((rest - error) / unit - static_cast<double>(touched_at_most()), 0.0);
    // With a = 1 / temperature, y^a <= y for a >= 1; for a < 1, y^a >= y and, by the power mean of
    // n terms, sum y^a <= n^(1-a) (sum y)^a.
    const double a = 1 / out.temperature;
    out.tail_low = a > 1 ? 0 : low * out.tail_peak;
    out.tail_high =
        out.tail_peak * (a >= 1 ? high : std::pow(kLargestVocabulary, 1 - a) * std::pow(high, a));
  }
  for (const float logit : dropped) {
    const double weight = out.weight(logit);
    out.tail_low += weight;
    out.tail_high += weight;
  }
  return out;
}

// The index of the choice among the known candidates, or nullopt where the others matter.
std::optional<size_t> Sampler::pick(const Candidates& candidates) const {
  if (candidates.known.empty()) return std::nullopt;
  if (params_.temperature < kGreedyTemperature) return 0;

  size_t kept = candidates.known.size();
  bool open = !candidates.complete;  // the others are still in
  if (params_.top_k > 0 && params_.top_k <= kept) {
    kept = params_.top_k;
    open = false;
  }
  const double min_p = static_cast<double>(params_.min_p);
  std::vector<double> sums;
  sums.reserve(kept);
  for (size_t i = 0; i < kept; ++i) {
    const double weight = candidates.weight(candidates.known[i].logit);
    if (weight < min_p) {
      open = false;
      break;
    }
    sums.push_back(weight + (i == 0 ? 0 : sums.back()));
  }
  if (min_p > 0 && candidates.tail_peak < min_p) open = false;
  if (sums.empty()) return std::nullopt;

  // While the others are in, the total is only known to lie between `low` and `high`.
  const bool cut = params_.top_k > 0 || min_p > 0;
  double low = sums.back() + (open && !cut ? candidates.tail_low : 0);
  double high = sums.back() + (open ? candidates.tail_high : 0);
  if (params_.top_p < 1) {
    const double top_p = static_cast<double>(params_.top_p);
    const size_t last = first_at_least(sums, top_p * low);
    if (last != first_at_least(sums, top_p * high) || last >= sums.size()) return std::nullopt;
    sums.resize(last + 1);
    low = high = sums.back();
    open = false;
  }
  const double draw = uniform(params_.seed, step_);
  const size_t chosen = first_above(sums, draw * low);
  if (chosen != first_above(sums, draw * high)) return std::nullopt;
  if (chosen < sums.size()) return chosen;
  if (open) return std::nullopt;
  return sums.size() - 1;
}

std::optional<uint32_t> Sampler::choose(const RowOutput& row) const {
  if (needs_logits_) return std::nullopt;
  const Candidates known = candidates(row);
  if (known.complete && known.known.empty()) {
    if (allowed_next_) return std::nullopt;
    return row.argmax;
  }
  const std::optional<size_t> index = pick(known);
  if (!index) return std::nullopt;
  return known.known[*index].token;
}

// The choice where nothing is left: the arg-max of what is allowed.
uint32_t Sampler::fallback(const RowOutput& row, std::span<const float> logits) const {
  if (!allowed_next_) return row.argmax;
  std::optional<uint32_t> best;
  for (uint32_t token = 0; token < logits.size(); ++token) {
    if (!allowed(token)) continue;
    if (!best || logits[token] > logits[*best] || std::isnan(logits[*best])) best = token;
  }
  return best.value_or(row.argmax);
}

uint32_t Sampler::choose(const RowOutput& row, std::span<const float> logits) const {
  std::vector<float> values(logits.begin(), logits.end());
  for (const uint32_t token : touched()) {
    if (token < values.size()) values[token] = adjusted(token, values[token]);
  }
  std::vector<Scored> all;
  all.reserve(values.size());
  for (uint32_t token = 0; token < values.size(); ++token) {
    if (values[token] > kMinusInfinity && allowed(token)) all.push_back({values[token], token});
  }
  if (all.empty()) return fallback(row, logits);

  // Only the head of the distribution is sorted, and more of it as long as the choice lies beyond.
  Candidates head;
  head.temperature = static_cast<double>(params_.temperature);
  for (size_t count = 64;; count *= 8) {
    count = std::min(count, all.size());
    const auto end = all.begin() + static_cast<std::ptrdiff_t>(count);
    std::partial_sort(all.begin(), end, all.end());
    head.known.assign(all.begin(), end);
    head.complete = count == all.size();
    head.tail_low = head.tail_peak = 0;
    for (auto other = end; other != all.end(); ++other) {
      const double weight = head.weight(other->logit);
      head.tail_low += weight;
      head.tail_peak = std::max(head.tail_peak, weight);
    }
    head.tail_high = head.tail_low;
    const std::optional<size_t> index = pick(head);
    if (index) return head.known[*index].token;
    if (head.complete) return head.known[0].token;
  }
}

std::optional<Choice> Sampler::sample(const RowOutput& row, std::span<const float> logits,
                                      uint32_t top_logprobs) {
  const std::optional<uint32_t> token = logits.empty() ? choose(row) : choose(row, logits);
  if (!token) return std::nullopt;
  Choice choice;
  choice.token = *token;
  const auto known = std::find(row.top_ids.begin(), row.top_ids.end(), *token);
  if (known != row.top_ids.end()) {
    choice.logprob =
        row.top_logits[static_cast<size_t>(known - row.top_ids.begin())] - row.log_sum_exp;
  } else {
    choice.logprob = (*token < logits.size() ? logits[*token] : row.max) - row.log_sum_exp;
  }
  const size_t listed = std::min<size_t>(top_logprobs, row.top_ids.size());
  for (size_t i = 0; i < listed; ++i) {
    choice.top.push_back({row.top_ids[i], row.top_logits[i] - row.log_sum_exp});
  }
  ++counts_[*token];
  ++step_;
  banned_next_.clear();
  allowed_next_ = nullptr;
  allowed_also_.clear();
  return choice;
}

}  // namespace flexllm::host
