// The scheduler's policy in a time of its own: who goes when, what is computed, what is kept.
#include "server/scheduling/batcher.h"

#include <gtest/gtest.h>
#include <spdlog/spdlog.h>

#include <random>

#include "server/tests/chatty_model.h"
#include "server/tests/simulation.h"

namespace flexllm::server::testing {
namespace {

using namespace std::chrono_literals;

// A decode step takes 10 ms whatever its batch, a row of prefill 1 ms.
std::chrono::nanoseconds simple_cost(const host::Launch& launch) {
  if (launch.stage == host::Stage::decode) return 10ms;
  return launch.rows.size() * 1ms;
}

FakeModel endless_model() {
  FakeModel model = chatty_model();
  model.bias[FakeText::kEnd] = -1000;
  model.limits.context_length = 1024;
  model.limits.max_prefill_rows = 256;
  model.limits.pages = 1024;
  return model;
}

GenerationRequest request_of(std::vector<uint32_t> prompt, uint32_t max_tokens) {
  GenerationRequest request;
  request.prompts = {std::move(prompt)};
  request.max_tokens = max_tokens;
  request.sampling.temperature = 0;
  request.seeded = true;
  return request;
}

// Letters that depend on all arguments.
std::vector<uint32_t> letters(uint32_t count, uint32_t text) {
  std::mt19937 random(text);
  std::vector<uint32_t> tokens(count);
  for (auto& token : tokens) token = static_cast<uint32_t>('a' + random() % 26);
  return tokens;
}

double longest_gap(const Simulation::Record& record) {
  double longest = 0;
  for (size_t i = 1; i < record.seen.size(); ++i) {
    longest = std::max(longest, record.seen[i] - record.seen[i - 1]);
  }
  return longest;
}

TEST(Batcher, DecodeGoesOnWhileAPrefillLaunchRuns) {
  Simulation simulation(endless_model(), {}, simple_cost);
  const size_t stream = simulation.add(0, request_of(letters(8, 0), 200));
  for (uint32_t i = 1; i < 4; ++i) simulation.add(0.1, request_of(letters(512, i), 1));
  simulation.run();
  EXPECT_EQ(simulation.card->largest_prefill, 128);
  EXPECT_LT(longest_gap(simulation.records[stream]), 0.0201);
}

TEST(Batcher, WithoutADecodeKernelNextTokensSetALimitToPrefillLaunches) {
  FakeModel model = endless_model();
  model.limits.max_batch = 0;
  SchedulerOptions options;
  options.prefill_target = 50ms;
  Simulation alone(model, options, simple_cost);
  alone.add(0, request_of(letters(512, 0), 1));
  alone.run();
  EXPECT_EQ(alone.card->largest_prefill, 128) << "nobody waits for it";
  Simulation simulation(model, options, simple_cost);
  const size_t stream = simulation.add(0, request_of(letters(8, 0), 100));
  for (uint32_t i = 1; i < 4; ++i) simulation.add(0.05, request_of(letters(512, i), 1));
  simulation.run();
  EXPECT_LE(simulation.card->largest_prefill, 64) << "to begin with; then 32, in 32 ms";
  EXPECT_LT(longest_gap(simulation.records[stream]), 0.0701);
}

TEST(Batcher, ASharedBeginningIsComputedOnceAlsoAtOnce) {
  const auto prompt = [](uint32_t shared, uint32_t own) {
    auto tokens = letters(448, shared);
    const auto tail = letters(64, own);
    tokens.insert(tokens.end(), tail.begin(), tail.end());
    return tokens;
  };
  const auto first_tokens = [](Simulation& simulation, size_t from) {
    double sum = 0;
    for (size_t i = from; i < from + 4; ++i) {
      sum += simulation.records[i].seen.at(0) - simulation.records[i].arrived;
    }
    return sum / 4;
  };
  Simulation apart(endless_model(), {}, simple_cost);
  for (uint32_t i = 0; i < 4; ++i) apart.add(0, request_of(prompt(i, i), 1));
  apart.run();
  EXPECT_EQ(apart.card->rows, 4 * 512);

  Simulation cold(endless_model(), {}, simple_cost);
  for (uint32_t i = 0; i < 4; ++i) cold.add(0, request_of(prompt(0, i), 1));
  cold.run();
  EXPECT_EQ(cold.card->rows, 448 + 4 * 64);
  EXPECT_LT(first_tokens(cold, 0), 0.5 * first_tokens(apart, 0));
  for (size_t i = 1; i < 4; ++i) EXPECT_EQ(cold.records[i].outcome.usage->cached_tokens, 448u);

  Simulation warm(endless_model(), {}, simple_cost);
  warm.add(0, request_of(prompt(0, 100), 1));
  for (uint32_t i = 0; i < 4; ++i) warm.add(10, request_of(prompt(0, i), 1));
  warm.run();
  EXPECT_EQ(warm.card->rows, 512 + 4 * 64);
  EXPECT_LT(first_tokens(warm, 1), 0.2 * first_tokens(apart, 0));
  EXPECT_EQ(warm.metrics->prefix_hit_tokens, 4u * 448u);

  SchedulerOptions off;
  off.no_prefix_cache = true;
  Simulation without(endless_model(), off, simple_cost);
  for (uint32_t i = 0; i < 4; ++i) without.add(0, request_of(prompt(0, i), 1));
  without.run();
  EXPECT_EQ(without.card->rows, 4 * 512);
  for (size_t i = 0; i < 4; ++i) {
    EXPECT_EQ(without.records[i].outcome.text(), cold.records[i].outcome.text());
  }
}

TEST(Batcher, AnAnswerIsTheBeginningOfTheNextTurn) {
  FakeModel model = endless_model();  // whose tokens are one letter each
  for (uint32_t word = 0; word < 10; ++word) model.bias[FakeText::kFirstWord + word] = -1000;
  const auto prompt = letters(100, 1);
  Simulation one(model, {}, simple_cost);
  one.add(0, request_of(prompt, 101));
  one.run();
  auto next = prompt;
  for (const char c : one.records[0].outcome.text()) next.push_back(static_cast<uint8_t>(c));
  Simulation both(model, {}, simple_cost);
  both.add(0, request_of(prompt, 101));
  both.add(100, request_of(next, 5));
  both.run();
  EXPECT_EQ(both.records[1].outcome.usage->cached_tokens, 200u);
}

TEST(Batcher, PagesOfTheSuspendedWaitInHostMemory) {
  FakeModel model = endless_model();
  model.limits.pages = 40;
  const auto run = [&](uint64_t host_bytes) {
    SchedulerOptions options;
    options.host_cache_bytes = host_bytes;
    Simulation simulation(model, options, simple_cost);
    for (uint32_t i = 0; i < 4; ++i) simulation.add(0, request_of(letters(60, i), 200));
    simulation.run();
    std::vector<std::string> texts;
    for (const auto& record : simulation.records) texts.push_back(record.outcome.text());
    EXPECT_GT(simulation.metrics->preemptions, 0u);
    EXPECT_EQ(simulation.metrics->pages_from_host > 0, host_bytes > 0);
    EXPECT_EQ(simulation.metrics->kv_pages_used, 0u);
    return std::pair(texts, simulation.card->rows.load());
  };
  const auto [recomputed, more_rows] = run(0);
  const auto [moved, rows] = run(1 << 20);
  EXPECT_EQ(moved, recomputed);
  EXPECT_LT(rows, more_rows);
}

TEST(Batcher, ClientsGetEqualShares) {
  FakeModel model = endless_model();
  model.limits.max_batch = 1;
  Simulation simulation(model, {}, simple_cost);
  for (uint32_t i = 0; i < 50; ++i) {
    auto request = request_of(letters(8, i), 20);
    request.client = "many";
    simulation.add(0, std::move(request));
  }
  auto request = request_of(letters(8, 99), 20);
  request.client = "one";
  const size_t one = simulation.add(1, std::move(request));
  simulation.run();
  EXPECT_LT(*simulation.records[one].started, 1.5);
  for (size_t i = 1; i < 50; ++i) {
    EXPECT_GT(*simulation.records[i].started, *simulation.records[i - 1].started);
  }
}

TEST(Batcher, PriorityGoesFirstButNobodyWaitsForEver) {
  FakeModel model = endless_model();
  model.limits.max_batch = 1;
  SchedulerOptions options;
  options.patience = 5000ms;
  Simulation simulation(model, options, simple_cost);
  simulation.add(0, request_of(letters(8, 0), 20));
  auto low = request_of(letters(8, 1), 20);
  low.priority = 7;
  const size_t waits = simulation.add(0, std::move(low));
  for (uint32_t i = 0; i < 100; ++i) {  // more than the card can do
    auto high = request_of(letters(8, 2 + i), 20);
    high.priority = -7;
    simulation.add(0.1 * i, std::move(high));
  }
  simulation.run();
  EXPECT_GT(*simulation.records[waits].started, 5);
  EXPECT_LT(*simulation.records[waits].started, 6);
}

// Requests of all kinds at random times, more than the card has pages for; some are cancelled, some
// have a deadline, the card fails now and then. Each answer is what the request gets alone.
struct Crowd {
  explicit Crowd(uint32_t seed) : random(seed) {}
  uint32_t draw(uint32_t below) { return static_cast<uint32_t>(random() % below); }

  GenerationRequest request() {
    auto prompt = letters(8 + 9 * draw(6), draw(6));
    const auto tail = letters(draw(60), draw(1u << 30));
    prompt.insert(prompt.end(), tail.begin(), tail.end());
    prompt.push_back('x');
    auto request = request_of(std::move(prompt), 1 + draw(40));
    request.sampling.temperature = draw(2) == 0 ? 0.f : 1.f;
    request.sampling.seed = random();
    request.n = draw(8) == 0 ? 2 : 1;
    request.priority = static_cast<int32_t>(draw(3)) - 1;
    request.client = std::string(1, static_cast<char>('a' + draw(3)));
    if (draw(10) == 0) request.logprobs = draw(3);
    if (draw(10) == 0) request.echo = true;
    return request;
  }

  std::mt19937 random;
};

void expect_same_as_alone(uint32_t seed, double faults) {
  const auto level = spdlog::get_level();
  spdlog::set_level(spdlog::level::err);  // faults are no news here
  constexpr size_t kRequests = 1500;
  FakeModel model = chatty_model();
  model.limits.pages = 40;
  SchedulerOptions lonely;
  lonely.no_prefix_cache = true;
  Simulation alone(model, lonely, simple_cost);
  SchedulerOptions options;
  options.host_cache_bytes = 1 << 10;
  options.patience = 10000ms;
  options.max_faults = 20;
  Simulation together(model, options, simple_cost);
  Crowd crowd(seed);
  double arrival = 0;
  size_t lost = 0;
  std::vector<bool> may_end_early(kRequests);
  for (size_t i = 0; i < kRequests; ++i) {
    const auto request = crowd.request();
    alone.add(100.0 * static_cast<double>(i), request);
    arrival += 0.001 * crowd.draw(150);
    auto impatient = request;
    std::optional<double> cancel;
    if (crowd.draw(10) == 0) cancel = arrival + 0.01 * crowd.draw(100);
    if (crowd.draw(20) == 0) impatient.deadline = Simulation::at(arrival + 0.01 * crowd.draw(200));
    may_end_early[i] = cancel || impatient.deadline;
    together.add(arrival, std::move(impatient), cancel);
  }
  alone.run();
  using Kind = host::DeviceError::Kind;
  together.run([&] {
    if (faults == 0 || crowd.draw(1000) >= 1000 * faults) return;
    together.card->fault_kind = crowd.draw(2) == 0 ? Kind::launch_failed : Kind::launch_timeout;
    (crowd.draw(4) == 0 ? together.card->fail_start_after : together.card->fail_wait_after) = 0;
  });
  for (size_t i = 0; i < kRequests; ++i) {
    const auto& expected = alone.records[i].outcome;
    const auto& record = together.records[i];
    ASSERT_TRUE(record.ended) << i;
    ASSERT_TRUE(expected.usage) << i;
    if (may_end_early[i] && !record.outcome.usage) {
      ++lost;
      continue;
    }
    ASSERT_TRUE(record.outcome.usage) << i << record.outcome.error->message;
    EXPECT_EQ(record.outcome.texts, expected.texts) << i;
    EXPECT_EQ(record.outcome.finish, expected.finish) << i;
    EXPECT_EQ(record.outcome.usage->completion_tokens, expected.usage->completion_tokens) << i;
    if (faults == 0) {
      EXPECT_LT(*record.started - record.arrived, 60) << i;
    }
  }
  spdlog::set_level(level);
  EXPECT_GT(lost, 0u);
  EXPECT_LT(lost, kRequests / 5);
  EXPECT_GT(together.metrics->preemptions, 0u);
  EXPECT_GT(together.metrics->pages_from_host, 0u);
  EXPECT_GT(together.metrics->prefix_hit_tokens, 0u);
  EXPECT_EQ(together.metrics->kv_pages_used, 0u);
  if (faults > 0) {
    EXPECT_GT(together.metrics->device_errors, 100u);
    EXPECT_GT(together.metrics->device_recoveries, 50u);
  }
}

TEST(Batcher, ACrowdGetsTheSameTextAsAlone) { expect_same_as_alone(1, 0); }
TEST(Batcher, ACrowdGetsTheSameTextAsAloneOnACardThatFails) { expect_same_as_alone(2, 0.03); }

}  // namespace
}  // namespace flexllm::server::testing
