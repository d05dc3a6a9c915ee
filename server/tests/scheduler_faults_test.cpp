// What goes wrong around the scheduler: clients that leave, full queues, cards that fail.
#include <gtest/gtest.h>

#include <thread>

#include "server/tests/harness.h"

namespace flexllm::server::testing {
namespace {

using namespace std::chrono_literals;

TEST(Cancel, InTheQueueInPrefillAndInDecode) {
  FakeModel model = chatty_model();
  model.bias[FakeText::kEnd] = -1000;
  model.limits.max_batch = 2;
  Bench quiet(model);
  const auto expected = quiet.run(quiet.request("keeps going", 100)).text();

  Bench bench(model);
  bench.card->launch_ms = 1;
  auto stays = bench.submit(bench.request("keeps going", 100));
  auto decoding = bench.submit(bench.request("d", 200));
  decoding->read_until([](const Outcome& o) { return o.deltas > 3; });
  decoding->cancel();
  auto in_prefill = bench.submit(bench.request(std::string(200, 'p'), 50));  // 13 launches
  auto queued = bench.submit(bench.request("q", 50));
  std::this_thread::sleep_for(5ms);
  queued->cancel();
  in_prefill->cancel();
  EXPECT_EQ(stays->read_all().text(), expected);
  EXPECT_TRUE(bench.all_pages_return());
  EXPECT_EQ(bench.metrics->finished_cancelled, 3u);
}

TEST(Cancel, FreesTheSlotForTheNext) {
  FakeModel model = chatty_model();
  model.limits.max_batch = 1;
  model.bias[FakeText::kEnd] = -1000;
  Bench bench(model);
  bench.card->launch_ms = 2;
  auto hog = bench.submit(bench.request("hog", 250));
  auto next = bench.submit(bench.request("next", 3));
  hog->read_until([](const Outcome& o) { return o.deltas > 0; });
  hog->cancel();
  EXPECT_TRUE(next->read_all().usage);
}

TEST(Queue, FullIs429AndRecovers) {
  SchedulerOptions options;
  options.max_queue = 2;
  FakeModel model = chatty_model();
  model.limits.max_batch = 1;
  Bench bench(model, options);
  bench.card->hold = true;
  auto first = bench.submit(bench.request("1", 3));
  while (bench.card->launches == 0) std::this_thread::sleep_for(1ms);
  auto second = bench.submit(bench.request("2", 3));
  auto third = bench.submit(bench.request("3", 3));
  const auto refused = bench.scheduler.submit(bench.request("4", 3));
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().status, 429u);
  EXPECT_GT(refused.error().retry_after_s, 0u);
  bench.card->hold = false;
  for (auto* reader : {&first, &second, &third}) EXPECT_TRUE((*reader)->read_all().usage);
  EXPECT_TRUE(bench.run(bench.request("4", 3)).usage);
}

TEST(Queue, DeadlineEndsWaitingAndRunning) {
  FakeModel model = chatty_model();
  model.limits.max_batch = 1;
  model.bias[FakeText::kEnd] = -1000;
  Bench bench(model);
  bench.card->launch_ms = 5;
  auto soon = bench.request("running", 250);
  soon.deadline = std::chrono::steady_clock::now() + 60ms;
  auto running = bench.submit(soon);
  auto waiting = bench.submit(soon);
  EXPECT_EQ(running->read_all().error->code, "request_timeout");
  EXPECT_EQ(waiting->read_all().error->code, "request_timeout");
  EXPECT_TRUE(bench.all_pages_return());
}

TEST(Queue, SlowReaderIsDroppedAndStopsNobody) {
  SchedulerOptions options;
  options.result_bytes = 8000;  // of about 25,000
  FakeModel model = chatty_model();
  model.bias[FakeText::kEnd] = -1000;
  Bench bench(model, options);
  bench.card->launch_ms = 1;
  auto slow = bench.scheduler.submit(bench.request("slow", 250));
  ASSERT_TRUE(slow);
  auto quick = bench.submit(bench.request("quick", 250));
  EXPECT_TRUE(quick->read_all().usage);
  ASSERT_TRUE(bench.all_pages_return());
  const auto events = (*slow)->take();
  EXPECT_EQ(std::get<ApiError>(events.back()).code, "slow_reader");
}

// The same requests with a fault thrown in at every place one after the other.
TEST(Faults, AffectedRequestsAreComputedAgainWithTheSameText) {
  auto seeded = [](const Bench& bench) {
    auto request = bench.request("seeded request of some length", 25);
    request.sampling.temperature = 1;
    request.sampling.seed = 3;
    request.sampling.logit_bias = {{'e', 1.5f}};  // needs the full logits
    return request;
  };
  Bench quiet;
  const auto first = quiet.run(quiet.request("a prompt that takes two chunks", 25)).text();
  const auto second = quiet.run(seeded(quiet)).text();
  for (const auto place :
       {&FakeCard::fail_start_after, &FakeCard::fail_wait_after, &FakeCard::fail_logits_after}) {
    for (int after = 1; after < 40; after += 3) {
      Bench bench;
      ((*bench.card).*place) = after;
      auto a = bench.submit(bench.request("a prompt that takes two chunks", 25));
      auto b = bench.submit(seeded(bench));
      EXPECT_EQ(a->read_all().text(), first) << after;
      EXPECT_EQ(b->read_all().text(), second) << after;
      EXPECT_TRUE(bench.all_pages_return());
    }
  }
}

TEST(Faults, EchoedLogprobsSurviveAFault) {
  auto echo = [](const Bench& bench) {
    auto request = bench.request("an echoed prompt of thirty-odd bytes", 2);
    request.echo = true;
    request.logprobs = 1;
    return request;
  };
  Bench quiet;
  const auto expected = quiet.run(echo(quiet));
  Bench bench;
  bench.card->fail_wait_after = 3;
  const auto outcome = bench.run(echo(bench));
  EXPECT_EQ(bench.card->recoveries, 1);
  ASSERT_EQ(outcome.tokens[0].size(), expected.tokens[0].size());
  for (size_t i = 0; i < outcome.tokens[0].size(); ++i) {
    EXPECT_EQ(outcome.tokens[0][i].token, expected.tokens[0][i].token);
    EXPECT_EQ(outcome.tokens[0][i].logprob, expected.tokens[0][i].logprob);
  }
}

TEST(Faults, ARequestThatAlwaysFailsIsGivenUpAndOthersLive) {
  Bench bench;
  bench.card->bad_token = '!';
  auto bad = bench.submit(bench.request("poison!", 10));
  EXPECT_EQ(bad->read_all().error->status, 503u);
  EXPECT_EQ(bad->read_all().error->code, "device_error");
  EXPECT_TRUE(bench.run(bench.request("fine", 10)).usage);
  EXPECT_TRUE(bench.all_pages_return());
}

TEST(Faults, ALostCardRefusesAndComesBack) {
  SchedulerOptions options;
  options.recovery_pause = 50ms;
  Bench bench(chatty_model(), options);
  bench.card->failing_recoveries = 2;
  bench.card->fail_wait_after = 1;
  auto lost = bench.submit(bench.request("lost", 30));
  EXPECT_EQ(lost->read_all().error->code, "device_lost");
  EXPECT_EQ(bench.scheduler.state(), Scheduler::State::lost);
  const auto refused = bench.scheduler.submit(bench.request("refused", 3));
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().status, 503u);
  EXPECT_GT(refused.error().retry_after_s, 0u);
  for (int i = 0; i < 1000 && bench.scheduler.state() != Scheduler::State::ready; ++i) {
    std::this_thread::sleep_for(5ms);
  }
  EXPECT_TRUE(bench.run(bench.request("back", 3)).usage);
  EXPECT_TRUE(bench.all_pages_return());
}

TEST(Drain, LetsRunningWorkFinishAndRefusesNew) {
  Bench bench;
  bench.card->launch_ms = 2;
  auto running = bench.submit(bench.request("running", 20));
  std::thread drain([&] { bench.scheduler.drain(60s); });
  while (bench.scheduler.state() != Scheduler::State::draining) std::this_thread::sleep_for(1ms);
  const auto refused = bench.scheduler.submit(bench.request("new", 3));
  EXPECT_TRUE(running->read_all().usage);
  drain.join();
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, "draining");
}

TEST(Drain, EndsWhatTakesTooLong) {
  FakeModel model = chatty_model();
  model.bias[FakeText::kEnd] = -1000;
  Bench bench(model);
  bench.card->launch_ms = 20;
  auto running = bench.submit(bench.request("running", 250));
  bench.scheduler.drain(50ms);
  EXPECT_EQ(running->read_all().error->code, "draining");
}

TEST(Drain, DestructionEndsEverything) {
  auto bench = std::make_unique<Bench>();
  bench->card->launch_ms = 5;
  auto running = bench->submit(bench->request("running", 200));
  bench.reset();
  const auto& outcome = running->read_all();
  EXPECT_TRUE(outcome.error || outcome.usage);
}

}  // namespace
}  // namespace flexllm::server::testing
