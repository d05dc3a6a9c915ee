#include "host/sampler.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <memory>
#include <numeric>
#include <random>

#include "kernels/contract/numerics.h"

namespace flexllm::host {
namespace {

// A row result as the kernels make it (docs/numerics.md, section 7).
struct Row {
  std::vector<float> logits;
  std::vector<float> top_logits;
  std::vector<uint32_t> top_ids;
  RowOutput output;

  explicit Row(std::vector<float> values) : logits(std::move(values)) {
    std::vector<uint32_t> ids(logits.size());
    std::iota(ids.begin(), ids.end(), 0u);
    std::stable_sort(ids.begin(), ids.end(),
                     [&](uint32_t a, uint32_t b) { return logits[a] > logits[b]; });
    ids.resize(std::min<size_t>(ids.size(), 64));
    top_ids = ids;
    for (const uint32_t id : ids) top_logits.push_back(logits[id]);
    float partial[kernels::kPartialSums] = {};
    for (size_t i = 0; i < logits.size(); ++i) {
      partial[i % kernels::kPartialSums] += kernels::exp_nonpositive(logits[i] - top_logits[0]);
    }
    output.argmax = ids[0];
    output.max = top_logits[0];
    output.log_sum_exp = output.max + kernels::log_from_one(kernels::fold_partial_sums(partial));
    output.top_logits = top_logits;
    output.top_ids = top_ids;
  }
};

std::vector<float> random_logits(std::mt19937& random, size_t count) {
  std::normal_distribution<float> normal(0.0f, 1.0f);
  const float spread = std::exp(normal(random));
  std::vector<float> logits(count);
  const uint32_t shape = static_cast<uint32_t>(random() % 3);
  for (float& logit : logits) {
    logit = normal(random) * 2 * spread;
    if (shape == 1) logit = std::round(logit * 2) / 2;          // many ties
    if (shape == 2 && random() % 50 == 0) logit += 8 * spread;  // peaked
  }
  return logits;
}

SamplingParams random_params(std::mt19937& random) {
  const auto one_in = [&](uint32_t n) { return random() % n == 0; };
  const auto unit = [&] { return static_cast<float>(random() % 1000) / 1000.0f; };
  SamplingParams params;
  params.seed = random();
  params.temperature = one_in(6) ? 0.0f : one_in(2) ? 1.0f : 0.3f + 1.5f * unit();
  if (one_in(2)) params.top_p = 0.3f + 0.7f * unit();
  if (one_in(3)) params.top_k = 1 + static_cast<uint32_t>(random() % 100);
  if (one_in(4)) params.min_p = 0.2f * unit();
  if (one_in(3)) params.presence_penalty = unit();
  if (one_in(3)) params.frequency_penalty = unit();
  if (one_in(3)) params.repetition_penalty = 1.0f + unit();
  if (one_in(3)) {
    for (int i = 0; i < 5; ++i) {
      params.logit_bias[static_cast<uint32_t>(random() % 500)] = one_in(2) ? -100.0f : -3 * unit();
    }
  }
  if (one_in(10)) params.logit_bias[3] = 2.0f;
  if (one_in(20)) params.presence_penalty = -0.5f;
  return params;
}

// Whatever the row result settles is what the full logits give, and both go on alike.
TEST(Sampler, TheRowResultAndTheFullLogitsGiveTheSameTokens) {
  std::mt19937 random(7);
  uint32_t settled = 0, choices = 0;
  for (int request = 0; request < 300; ++request) {
    const size_t vocab = request % 7 == 0 ? 20 + random() % 60 : 500 + random() % 3000;
    const SamplingParams params = random_params(random);
    const std::vector<uint32_t> prompt{3, 9, 27, 81};
    Sampler from_row(params, prompt);
    Sampler from_logits(params, prompt);
    for (int step = 0; step < 12; ++step) {
      const Row row(random_logits(random, vocab));
      if (random() % 4 == 0) {
        const std::vector<uint32_t> banned{row.output.argmax, 5};
        from_row.ban_next(banned);
        from_logits.ban_next(banned);
      }
      auto choice = from_row.sample(row.output, {}, 5);
      settled += choice.has_value();
      ++choices;
      ASSERT_FALSE(from_row.needs_logits() && choice.has_value());
      if (!choice) choice = from_row.sample(row.output, row.logits, 5);
      const auto expected = from_logits.sample(row.output, row.logits, 5);
      ASSERT_TRUE(choice.has_value() && expected.has_value());
      ASSERT_EQ(choice->token, expected->token) << "request " << request << " step " << step;
      ASSERT_EQ(choice->logprob, expected->logprob);
      ASSERT_EQ(choice->logprob, row.logits[choice->token] - row.output.log_sum_exp);
    }
  }
  EXPECT_GT(settled, choices / 2) << "the row result should settle most choices";
}

std::shared_ptr<AllowedTokens> set_of(const std::vector<uint32_t>& tokens, size_t vocab) {
  auto set = std::make_shared<AllowedTokens>();
  set->words.resize((vocab + 63) / 64);
  for (const uint32_t token : tokens) {
    if (set->contains(token)) continue;
    set->words[token / 64] |= uint64_t{1} << (token % 64);
    ++set->count;
  }
  return set;
}

TEST(Sampler, OnlyAllowedTokensAreChosenFromTheRowResultAsFromTheLogits) {
  std::mt19937 random(11);
  uint32_t settled = 0, choices = 0;
  for (int request = 0; request < 200; ++request) {
    const size_t vocab = request % 7 == 0 ? 20 + random() % 60 : 500 + random() % 3000;
    const SamplingParams params = random_params(random);
    Sampler from_row(params, {});
    Sampler from_logits(params, {});
    for (int step = 0; step < 12; ++step) {
      const Row row(random_logits(random, vocab));
      // A few tokens, or all but a few.
      std::vector<uint32_t> tokens;
      const bool few = random() % 2 == 0;
      for (uint32_t token = 0; token < vocab; ++token) {
        if ((random() % 40 == 0) == few) tokens.push_back(token);
      }
      const std::vector<uint32_t> also{static_cast<uint32_t>(random() % vocab)};
      const auto set = set_of(tokens, vocab);
      from_row.allow_next(set, also);
      from_logits.allow_next(set, also);
      if (random() % 4 == 0) {
        from_row.ban_next(also);
        from_logits.ban_next(also);
      }
      auto choice = from_row.sample(row.output, {}, 0);
      settled += choice.has_value();
      ++choices;
      if (!choice) choice = from_row.sample(row.output, row.logits, 0);
      const auto expected = from_logits.sample(row.output, row.logits, 0);
      ASSERT_TRUE(choice.has_value() && expected.has_value());
      ASSERT_EQ(choice->token, expected->token) << "request " << request << " step " << step;
      ASSERT_TRUE(set->contains(choice->token) || choice->token == also[0]);
      ASSERT_EQ(choice->logprob, row.logits[choice->token] - row.output.log_sum_exp);
    }
  }
  EXPECT_GT(settled, choices / 5);
}

TEST(Sampler, TheOnlyAllowedTokenIsChosenWhateverElseIsAsked) {
  const Row row({2.0f, 1.0f, 0.0f, -50.0f});
  SamplingParams params;
  params.logit_bias = {{3, -100.0f}};
  params.banned = {3};
  Sampler sampler(params, {});
  sampler.allow_next(set_of({3}, 4), {});
  EXPECT_FALSE(sampler.sample(row.output, {}, 0).has_value());
  EXPECT_EQ(sampler.sample(row.output, row.logits, 0)->token, 3u);
  EXPECT_NE(sampler.sample(row.output, row.logits, 0)->token, 3u) << "for one choice";
}

TEST(Sampler, GreedyTakesTheArgMax) {
  SamplingParams params;
  params.temperature = 0;
  Sampler sampler(params, {});
  std::mt19937 random(1);
  for (int i = 0; i < 20; ++i) {
    const Row row(random_logits(random, 1000));
    EXPECT_EQ(sampler.sample(row.output, {}, 0)->token, row.output.argmax);
  }
}

TEST(Sampler, FollowsTheDistribution) {
  const Row row({std::log(0.5f), std::log(0.3f), std::log(0.15f), std::log(0.05f)});
  const auto share_of = [&](SamplingParams params) {
    std::vector<double> share(4, 0);
    constexpr int kDraws = 20000;
    Sampler sampler(params, {});
    for (int i = 0; i < kDraws; ++i) {
      share[sampler.sample(row.output, {}, 0)->token] += 1.0 / kDraws;
    }
    return share;
  };
  SamplingParams params;
  params.seed = 5;
  const double error = 0.015;  // about four standard deviations
  EXPECT_NEAR(share_of(params)[0], 0.5, error);
  EXPECT_NEAR(share_of(params)[3], 0.05, error);
  params.temperature = 0.5f;  // squares
  EXPECT_NEAR(share_of(params)[0], 0.25 / 0.365, error);
  params.temperature = 1;
  params.top_p = 0.79f;  // the first two
  EXPECT_NEAR(share_of(params)[1], 0.375, error);
  EXPECT_EQ(share_of(params)[2], 0);
  params.top_p = 1;
  params.top_k = 3;
  EXPECT_NEAR(share_of(params)[2], 0.15 / 0.95, error);
  EXPECT_EQ(share_of(params)[3], 0);
  params.top_k = 0;
  params.min_p = 0.2f;  // of 0.5
  EXPECT_NEAR(share_of(params)[0], 0.5 / 0.95, error);
  EXPECT_EQ(share_of(params)[3], 0);
}

TEST(Sampler, PenaltiesBiasAndBans) {
  const Row row({2.0f, 1.9f, 1.0f, -1.0f});
  SamplingParams greedy;
  greedy.temperature = 0;
  const auto first_tokens = [&](SamplingParams params, std::vector<uint32_t> prompt) {
    Sampler sampler(params, prompt);
    std::vector<uint32_t> tokens;
    for (int i = 0; i < 3; ++i) tokens.push_back(sampler.sample(row.output, row.logits, 0)->token);
    return tokens;
  };
  using Tokens = std::vector<uint32_t>;
  SamplingParams params = greedy;
  params.presence_penalty = 0.5f;
  EXPECT_EQ(first_tokens(params, {}), (Tokens{0, 1, 0}));
  params = greedy;
  params.frequency_penalty = 0.7f;
  EXPECT_EQ(first_tokens(params, {}), (Tokens{0, 1, 0}));
  params = greedy;
  params.repetition_penalty = 4.0f;
  EXPECT_EQ(first_tokens(params, {0, 0, 1}), (Tokens{2, 0, 0}));
  params = greedy;
  params.logit_bias = {{3, 5.0f}};
  EXPECT_EQ(first_tokens(params, {}), (Tokens{3, 3, 3}));
  params.logit_bias = {{0, -100.0f}};
  EXPECT_EQ(first_tokens(params, {}), (Tokens{1, 1, 1}));
  params = greedy;
  params.banned = {1, 0};
  EXPECT_EQ(first_tokens(params, {}), (Tokens{2, 2, 2}));
  params.banned = {0, 1, 2, 3};
  EXPECT_EQ(first_tokens(params, {}), (Tokens{0, 0, 0}));
}

TEST(Sampler, BansForOneChoice) {
  const Row row({2.0f, 1.0f, 0.0f});
  SamplingParams params;
  params.temperature = 0;
  Sampler sampler(params, {});
  const std::vector<uint32_t> banned{0};
  sampler.ban_next(banned);
  EXPECT_EQ(sampler.sample(row.output, {}, 0)->token, 1u);
  EXPECT_EQ(sampler.sample(row.output, {}, 0)->token, 0u);
}

TEST(Sampler, SaysWhenItNeedsTheFullRow) {
  const auto needs = [](auto change) {
    SamplingParams params;
    change(params);
    return Sampler(params, {}).needs_logits();
  };
  EXPECT_FALSE(needs([](SamplingParams&) {}));
  EXPECT_FALSE(needs([](SamplingParams& p) { p.logit_bias[7] = -100; }));
  EXPECT_FALSE(needs([](SamplingParams& p) { p.repetition_penalty = 1.3f; }));
  EXPECT_TRUE(needs([](SamplingParams& p) { p.logit_bias[7] = 0.5f; }));
  EXPECT_TRUE(needs([](SamplingParams& p) { p.presence_penalty = -1; }));
  EXPECT_TRUE(needs([](SamplingParams& p) { p.frequency_penalty = -1; }));
  EXPECT_TRUE(needs([](SamplingParams& p) { p.repetition_penalty = 0.9f; }));
}

TEST(Sampler, AFlatDistributionAsksForTheFullRowAndNothingChanges) {
  const Row row(std::vector<float>(2000, 1.0f));
  SamplingParams params;
  params.seed = 3;
  Sampler sampler(params, {});
  Sampler other(params, {});
  EXPECT_FALSE(sampler.sample(row.output, {}, 0).has_value());
  EXPECT_FALSE(sampler.sample(row.output, {}, 0).has_value());
  EXPECT_EQ(sampler.sample(row.output, row.logits, 0)->token,
            other.sample(row.output, row.logits, 0)->token);
}

TEST(Sampler, TheSeedDecides) {
  std::mt19937 random(2);
  const Row row(random_logits(random, 40));
  const auto draw = [&](uint64_t seed) {
    SamplingParams params;
    params.seed = seed;
    params.temperature = 3;
    Sampler sampler(params, {});
    std::vector<uint32_t> tokens;
    for (int i = 0; i < 16; ++i) tokens.push_back(sampler.sample(row.output, {}, 0)->token);
    return tokens;
  };
  EXPECT_EQ(draw(1), draw(1));
  EXPECT_NE(draw(1), draw(2));
}

TEST(Sampler, ListsTheLogprobsOfTheModel) {
  std::mt19937 random(4);
  const Row row(random_logits(random, 300));
  SamplingParams params;
  params.temperature = 0.1f;
  params.logit_bias[row.output.argmax] = -100;
  Sampler sampler(params, {});
  const auto choice = sampler.sample(row.output, row.logits, 20);
  ASSERT_EQ(choice->top.size(), 20u);
  EXPECT_EQ(choice->top[0].token, row.output.argmax);
  for (size_t i = 1; i < 20; ++i) EXPECT_GE(choice->top[i - 1].logprob, choice->top[i].logprob);
  double sum = 0;
  for (const float logit : row.logits) {
    sum += std::exp(static_cast<double>(logit) - static_cast<double>(row.output.log_sum_exp));
  }
  EXPECT_NEAR(sum, 1.0, 1e-4);
}

TEST(Sampler, IgnoresNan) {
  std::vector<float> logits(100, -1.0f);
  logits[5] = 3.0f;
  const Row row(logits);
  logits[7] = std::numeric_limits<float>::quiet_NaN();
  SamplingParams params;
  params.temperature = 0;
  Sampler sampler(params, {});
  EXPECT_EQ(sampler.sample(row.output, logits, 0)->token, 5u);
}

}  // namespace
}  // namespace flexllm::host
