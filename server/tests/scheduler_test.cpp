// The scheduler on a fake card whose text depends on every token, page and position.
#include "server/scheduling/scheduler.h"

#include <gtest/gtest.h>

#include "server/tests/harness.h"

namespace flexllm::server::testing {
namespace {

std::string prompt_of(int i) {
  return std::string(static_cast<size_t>(3 + (i * 13) % 70), static_cast<char>('a' + i % 26)) +
         std::to_string(i);
}

TEST(Scheduler, TextIsTheSameAloneAndInABatch) {
  std::vector<std::string> alone;
  for (int i = 0; i < 12; ++i) {
    Bench bench;
    alone.push_back(bench.run(bench.request(prompt_of(i))).text());
  }
  Bench bench;
  bench.card->launch_ms = 1;
  std::vector<std::unique_ptr<Reader>> readers;
  for (int i = 0; i < 12; ++i) readers.push_back(bench.submit(bench.request(prompt_of(i))));
  for (size_t i = 0; i < 12; ++i) EXPECT_EQ(readers[i]->read_all().text(), alone[i]) << i;
  EXPECT_GT(bench.card->largest_decode, 1) << "requests did not share decode steps";
  EXPECT_GT(bench.card->mixed_turns, 0) << "no prefill ran beside a decode step";
  EXPECT_TRUE(bench.all_pages_return());
}

TEST(Scheduler, TextDoesNotDependOnTheChunk) {
  std::string expected;
  for (const uint32_t chunk : {16u, 1u, 3u, 7u}) {
    SchedulerOptions options;
    options.prefill_chunk = chunk;
    Bench bench(chatty_model(), options);
    const auto text = bench.run(bench.request(prompt_of(5))).text();
    if (expected.empty()) expected = text;
    EXPECT_EQ(text, expected) << chunk;
  }
  EXPECT_FALSE(expected.empty());
}

TEST(Scheduler, OneKernelIsEnough) {
  Bench both;
  const auto expected = both.run(both.request(prompt_of(4))).text();
  FakeModel decode_only = chatty_model();
  decode_only.limits.max_prefill_rows = 0;
  Bench decode(decode_only);
  EXPECT_EQ(decode.run(decode.request(prompt_of(4))).text(), expected);
  FakeModel prefill_only = chatty_model();
  prefill_only.limits.max_batch = 0;
  Bench prefill(prefill_only);
  EXPECT_EQ(prefill.run(prefill.request(prompt_of(4))).text(), expected);
}

TEST(Scheduler, SeedDecidesWhateverElseRuns) {
  auto seeded = [](const Bench& bench, uint64_t seed) {
    auto request = bench.request("seeded");
    request.sampling.temperature = 1;
    request.sampling.seed = seed;
    request.n = 3;
    return request;
  };
  Bench quiet;
  const auto alone = quiet.run(seeded(quiet, 7)).texts;
  EXPECT_NE(alone[0], alone[1]);
  EXPECT_NE(alone[1], alone[2]);
  EXPECT_NE(alone, quiet.run(seeded(quiet, 8)).texts);
  Bench busy;
  std::vector<std::unique_ptr<Reader>> others;
  for (int i = 0; i < 5; ++i) others.push_back(busy.submit(busy.request(prompt_of(i))));
  EXPECT_EQ(busy.run(seeded(busy, 7)).texts, alone);
  for (auto& other : others) other->read_all();

  auto one = seeded(quiet, 7);
  one.n = 1;
  EXPECT_EQ(quiet.run(one).text(), alone[0]) << "the first choice depends on n";
}

TEST(Scheduler, SeveralPromptsAndChoices) {
  Bench bench;
  auto request = bench.request("first", 5);
  request.prompts.push_back(bench.text->encode("second", true));
  request.n = 2;
  const auto outcome = bench.run(request);
  ASSERT_EQ(outcome.texts.size(), 4u);
  EXPECT_EQ(outcome.texts[0], bench.run(bench.request("first", 5)).text());
  EXPECT_EQ(outcome.texts[3], bench.run(bench.request("second", 5)).text());
  EXPECT_EQ(outcome.usage->prompt_tokens, 11u);
}

TEST(Scheduler, PreemptionWhenTheCardIsFullChangesNoText) {
  FakeModel small = chatty_model();
  small.limits.pages = 14;  // of 8 positions; four sequences want up to 11 each
  std::vector<std::string> alone;
  for (int i = 0; i < 6; ++i) {
    Bench bench(small);
    alone.push_back(bench.run(bench.request(prompt_of(i), 30)).text());
  }
  Bench bench(small);
  std::vector<std::unique_ptr<Reader>> readers;
  bench.card->hold = true;
  for (int i = 0; i < 6; ++i) {
    auto request = bench.request(prompt_of(i), 30);
    readers.push_back(bench.submit(std::move(request)));
  }
  bench.card->hold = false;
  for (size_t i = 0; i < 6; ++i) EXPECT_EQ(readers[i]->read_all().text(), alone[i]) << i;
  EXPECT_TRUE(bench.all_pages_return());
}

TEST(Scheduler, GrowthPreemptsTheNewest) {
  FakeModel small = chatty_model();
  small.bias[FakeText::kEnd] = -1000;
  small.limits.pages = 8;
  Bench bench(small);
  auto older = bench.submit(bench.request("a", 60));  // alone it needs all 8 pages
  auto newer = bench.submit(bench.request("b", 60));
  const auto first = older->read_all();
  const auto second = newer->read_all();
  EXPECT_GT(bench.metrics->preemptions, 0u);
  Bench fresh(small);
  EXPECT_EQ(first.text(), fresh.run(fresh.request("a", 60)).text());
  EXPECT_EQ(second.text(), fresh.run(fresh.request("b", 60)).text());
}

TEST(Scheduler, LengthAndContextEndAChoice) {
  FakeModel endless = chatty_model();
  endless.bias[FakeText::kEnd] = -1000;
  Bench bench(endless);
  const auto five = bench.run(bench.request("x", 5));
  EXPECT_EQ(five.finish[0], FinishReason::length);
  EXPECT_EQ(five.usage->completion_tokens, 5u);
  EXPECT_EQ(five.usage->prompt_tokens, 1u);
  auto unlimited = bench.request(std::string(250, 'x'));
  unlimited.max_tokens.reset();
  EXPECT_EQ(bench.run(unlimited).usage->completion_tokens, 6u);  // context 256
}

TEST(Scheduler, TooLongPromptIsRefusedWithItsNumbers) {
  Bench bench;
  const auto refused = bench.scheduler.submit(bench.request(std::string(256, 'x')));
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().type, "exceed_context_size_error");
  EXPECT_EQ(refused.error().numbers[0].second, 256u);
  EXPECT_EQ(refused.error().numbers[1].second, 256u);
  EXPECT_TRUE(bench.scheduler.submit(bench.request(std::string(255, 'x'))));
}

TEST(Scheduler, EndTokensMinTokensAndIgnoreEos) {
  FakeModel eager = chatty_model();
  eager.bias[FakeText::kEnd] = 1000;
  Bench bench(eager);
  const auto at_once = bench.run(bench.request("x", 20));
  EXPECT_EQ(at_once.text(), "");
  EXPECT_EQ(at_once.finish[0], FinishReason::stop);
  EXPECT_EQ(at_once.usage->completion_tokens, 1u);
  auto later = bench.request("x", 20);
  later.min_tokens = 7;
  EXPECT_EQ(bench.run(later).usage->completion_tokens, 8u);
  auto never = bench.request("x", 20);
  never.ignore_eos = true;
  EXPECT_EQ(bench.run(never).usage->completion_tokens, 20u);
  Bench calm(chatty_model());
  auto other = calm.request("x", 20);
  other.ignore_eos = true;
  for (uint32_t c = 'a'; c <= 'z'; ++c) other.stop_token_ids.push_back(c);
  const auto stopped = calm.run(other);
  EXPECT_EQ(stopped.finish[0], FinishReason::stop);
  EXPECT_LT(stopped.usage->completion_tokens, 20u);
}

TEST(Scheduler, StopStringEndsAndIsNotShown) {
  Bench bench;
  const auto whole = bench.run(bench.request("story", 40)).text();
  ASSERT_GT(whole.size(), 12u);
  const std::string stop = whole.substr(6, 4);
  auto request = bench.request("story", 40);
  request.stop = {"never seen", stop};
  const auto cut = bench.run(request);
  EXPECT_EQ(cut.text(), whole.substr(0, whole.find(stop)));
  EXPECT_EQ(cut.finish[0], FinishReason::stop);
  EXPECT_TRUE(bench.all_pages_return());
}

TEST(Scheduler, EchoAndPromptLogprobs) {
  Bench bench;
  auto request = bench.request("hello world, this is a prompt", 3);
  request.echo = true;
  request.logprobs = 2;
  const auto with = bench.run(request);
  const auto plain = bench.run(bench.request("hello world, this is a prompt", 3)).text();
  EXPECT_EQ(with.text(), "hello world, this is a prompt" + plain);
  ASSERT_EQ(with.tokens[0].size(), 29u + 3u);
  EXPECT_FALSE(with.tokens[0][0].logprob);
  for (size_t i = 1; i < with.tokens[0].size(); ++i) {
    const auto& token = with.tokens[0][i];
    ASSERT_TRUE(token.logprob);
    EXPECT_LE(*token.logprob, 0);
    EXPECT_EQ(token.top.size(), 2u);
    EXPECT_GE(token.top[0].logprob, *token.logprob);
    if (i < 29) {
      EXPECT_EQ(token.text_offset, i);
    }
  }
  request.max_tokens = 0;
  const auto only = bench.run(request);
  EXPECT_EQ(only.text(), "hello world, this is a prompt");
  EXPECT_EQ(only.usage->completion_tokens, 0u);
  ASSERT_EQ(only.tokens[0].size(), 29u);
  for (size_t i = 1; i < 29; ++i) {
    EXPECT_EQ(only.tokens[0][i].logprob, with.tokens[0][i].logprob);
  }
}

TEST(Scheduler, LogprobsOfShownTokensOnly) {
  Bench bench;
  auto request = bench.request("story", 40);
  request.logprobs = 0;
  const auto whole = bench.run(request);
  std::string joined;
  for (const auto& token : whole.tokens[0]) joined += bench.text->token_bytes(token.token);
  EXPECT_EQ(bench.text->decode(bench.text->encode(joined, false)), whole.text());
  request.stop = {whole.text().substr(6, 4)};
  const auto cut = bench.run(request);
  for (const auto& token : cut.tokens[0]) {
    EXPECT_LT(token.text_offset, characters(cut.text())) << "a token of the stop string";
  }
}

TEST(Scheduler, PriorityGoesFirst) {
  FakeModel one = chatty_model();
  one.limits.max_batch = 1;
  Bench bench(one);
  bench.card->hold = true;
  auto running = bench.submit(bench.request("now", 3));
  auto later = bench.submit(bench.request("later", 30));
  auto urgent_request = bench.request("urgent", 30);
  urgent_request.priority = -1;
  auto urgent = bench.submit(urgent_request);
  bench.card->launch_ms = 2;
  bench.card->hold = false;
  urgent->read_all();
  int seen = -1;
  later->read_until([&](const Outcome& outcome) {
    seen = outcome.deltas;
    return true;
  });
  EXPECT_EQ(seen, 0);
}

// Counting the text again for each token would take minutes of the scheduler's only thread.
TEST(Sequence, EchoOfALongPromptTakesLinearTime) {
  constexpr size_t kTokens = 1000000;
  const FakeText text;
  auto job = std::make_shared<Job>();
  job->request.prompts = {std::vector<uint32_t>(kTokens, 'x')};
  job->request.echo = true;
  job->request.logprobs = 0;
  Sequence sequence(job, 0, 1, text);
  sequence.enter();
  const auto begin = std::chrono::steady_clock::now();
  sequence.begin();
  EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(5));
  const Delta delta = sequence.take(FinishReason::length);
  EXPECT_EQ(delta.text.size(), kTokens);
  EXPECT_EQ(delta.tokens.back().text_offset, kTokens - 1);
}

}  // namespace
}  // namespace flexllm::server::testing
