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

TEST(Queue, AnEchoLargerThanTheBoundIsNoSlowReader) {
  SchedulerOptions options;
  options.result_bytes = 400;
  Bench bench(chatty_model(), options);
  auto request = bench.request(std::string(200, 'p'), 1);
  request.echo = true;
  request.logprobs = 5;
  const auto outcome = bench.run(request);
  ASSERT_TRUE(outcome.usage) << outcome.error->message;
  EXPECT_TRUE(outcome.text().starts_with(std::string(200, 'p')));
}

TEST(Queue, NothingFollowsAFinalEvent) {
  ResultQueue queue(1000);
  EXPECT_TRUE(queue.push(queue_full()));
  EXPECT_TRUE(queue.push(Delta{}));
  EXPECT_TRUE(queue.push(internal_error()));
  const auto events = queue.take();
  ASSERT_EQ(events.size(), 1u);
  EXPECT_EQ(std::get<ApiError>(events[0]).status, 429u);
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
  using Kind = host::DeviceError::Kind;
  Bench quiet;
  const auto first = quiet.run(quiet.request("a prompt that takes two chunks", 25)).text();
  const auto second = quiet.run(seeded(quiet)).text();
  for (const auto& [place, kind] : {std::pair(&FakeCard::fail_start_after, Kind::launch_timeout),
                                    std::pair(&FakeCard::fail_start_after, Kind::launch_failed),
                                    std::pair(&FakeCard::fail_wait_after, Kind::launch_timeout),
                                    std::pair(&FakeCard::fail_wait_after, Kind::launch_failed),
                                    std::pair(&FakeCard::fail_logits_after, Kind::copy_failed)}) {
    for (int after = 1; after < 40; after += 3) {
      Bench bench;
      bench.card->fault_kind = kind;
      ((*bench.card).*place) = after;
      auto a = bench.submit(bench.request("a prompt that takes two chunks", 25));
      auto b = bench.submit(seeded(bench));
      EXPECT_EQ(a->read_all().text(), first) << after;
      EXPECT_EQ(b->read_all().text(), second) << after;
      EXPECT_TRUE(bench.all_pages_return());
      const bool failed = ((*bench.card).*place) < 0;
      EXPECT_EQ(bench.card->recoveries, failed && kind != Kind::launch_failed ? 1 : 0);
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

// The poison is in the second chunk of its prompt, a launch that it shares with "late" and "fine".
// These decode side by side until "late" generates the token that the card cannot take.
TEST(Faults, ARequestThatAlwaysFailsIsGivenUpAndOthersLive) {
  FakeModel model = chatty_model();
  model.bias[FakeText::kEnd] = -1000;
  Bench quiet(model);
  const auto before = quiet.run(quiet.request("before", 30)).text();
  const auto fine = quiet.run(quiet.request("fine", 30)).text();

  Bench bench(model);
  bench.card->hold = true;  // until all are there
  bench.card->bad_token = '!';
  auto first = bench.submit(bench.request("before", 30));
  auto bad = bench.submit(bench.request("a long prompt with poison!", 10));
  auto late_request = bench.request("late", 10);
  late_request.sampling.logit_bias = {{'!', 2000.f}};
  auto late = bench.submit(late_request);
  auto good = bench.submit(bench.request("fine", 30));
  bench.card->hold = false;
  for (auto* reader : {&bad, &late}) {
    const auto& outcome = (*reader)->read_all();
    ASSERT_TRUE(outcome.error);
    EXPECT_EQ(outcome.error->status, 503u);
    EXPECT_EQ(outcome.error->code, "device_error");
  }
  EXPECT_EQ(first->read_all().text(), before);
  EXPECT_EQ(good->read_all().text(), fine);
  EXPECT_EQ(bench.card->recoveries, 0);
  EXPECT_TRUE(bench.all_pages_return());
}

// Each fault is in a new place: the card is weak, the request is not at fault.
TEST(Faults, FaultsAreForgottenOnceTheirPlaceIsPassed) {
  FakeModel model = chatty_model();
  model.bias[FakeText::kEnd] = -1000;
  Bench quiet(model);
  const auto expected = quiet.run(quiet.request("long", 60)).text();
  Bench bench(model);
  bench.card->fault_kind = host::DeviceError::Kind::launch_failed;
  bench.card->launch_ms = 2;
  auto reader = bench.submit(bench.request("long", 60));
  for (uint64_t faults = 1; faults <= 5; ++faults) {
    bench.card->fail_wait_after = 0;
    while (bench.metrics->device_errors < faults) std::this_thread::sleep_for(1ms);
    const uint64_t tokens = bench.metrics->generated_tokens;
    while (bench.metrics->generated_tokens < tokens + 2 && bench.metrics->finished_error == 0) {
      std::this_thread::sleep_for(1ms);
    }
    ASSERT_EQ(bench.metrics->finished_error, 0u);
  }
  EXPECT_EQ(reader->read_all().text(), expected);
  EXPECT_EQ(bench.metrics->device_errors, 5u);
}

TEST(Faults, ACardThatFailsEveryLaunchIsRecovered) {
  SchedulerOptions options;
  options.max_faults = 0;
  Bench bench(chatty_model(), options);
  bench.card->bad_token = '!';
  for (int i = 0; i < 2; ++i) EXPECT_TRUE(bench.run(bench.request("poison!", 3)).error);
  EXPECT_TRUE(bench.run(bench.request("fine", 3)).usage);
  EXPECT_EQ(bench.card->recoveries, 1);
}

TEST(Faults, ALostCardStaysLostDuringAttemptsAndAfterAnException) {
  SchedulerOptions options;
  options.recovery_pause = 5ms;
  Bench bench(chatty_model(), options);
  bench.card->throwing_recoveries = 2;
  bench.card->fail_wait_after = 0;
  auto lost = bench.submit(bench.request("lost", 30));
  EXPECT_EQ(lost->read_all().error->code, "device_lost");
  bench.card->hold_recovery = true;
  const int before = bench.card->recoveries;
  for (int i = 0; i < 1000 && bench.card->recoveries == before; ++i) {
    std::this_thread::sleep_for(5ms);
  }
  EXPECT_EQ(bench.scheduler.state(), Scheduler::State::lost);
  const auto refused = bench.scheduler.submit(bench.request("refused", 3));
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, "device_lost");
  bench.card->hold_recovery = false;
  for (int i = 0; i < 1000 && bench.scheduler.state() != Scheduler::State::ready; ++i) {
    std::this_thread::sleep_for(5ms);
  }
  EXPECT_TRUE(bench.run(bench.request("back", 3)).usage);
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

TEST(Drain, EndsOnTimeWhileTheCardHangs) {
  Bench bench;
  bench.card->hold = true;
  auto running = bench.submit(bench.request("running", 250));
  while (bench.card->launches == 0) std::this_thread::sleep_for(1ms);
  std::thread thaw([&] {
    std::this_thread::sleep_for(3s);
    bench.card->hold = false;
  });
  const auto begin = std::chrono::steady_clock::now();
  bench.scheduler.drain(50ms);
  EXPECT_EQ(running->read_all().error->code, "draining");
  EXPECT_LT(std::chrono::steady_clock::now() - begin, 2s);
  thaw.join();
  EXPECT_TRUE(bench.all_pages_return());
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
