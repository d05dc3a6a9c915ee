#include "host/engine.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <cmath>
#include <stdexcept>

#include "host/tests/engine_fixture.h"

namespace flexllm::host {
namespace {

TEST_F(EngineTest, StatesItsLimits) {
  const auto engine = open();
  ASSERT_NE(engine, nullptr);
  const EngineLimits& limits = engine->limits();
  EXPECT_EQ(limits.max_prefill_rows, 512u);
  EXPECT_EQ(limits.max_batch, 16u);
  EXPECT_EQ(limits.max_logits_rows, 512u);
  EXPECT_EQ(limits.context_length, 512u);
  EXPECT_EQ(limits.page_tokens, 32u);
  EXPECT_EQ(limits.layers, 2u);
  EXPECT_EQ(limits.vocab, 1024u);
  // 32 tokens x 2 layers x (1 scale word + 2 x 4 head words) of 64 bytes; 4 MiB in each arena.
  EXPECT_EQ(limits.pages, 8u * ((2u << 20) / (32 * 2 * 9 * 64)));
  EXPECT_EQ(engine->pages().total(), limits.pages);
}

TEST_F(EngineTest, TellsWhatTheBoardMeasuresAndWhatWasCopied) {
  const auto engine = open();
  ASSERT_NE(engine, nullptr);
  const auto telemetry = engine->telemetry();
  const BoardReading board = telemetry->board();
  EXPECT_DOUBLE_EQ(board.watts.value(), 31.5);  // what the emulated card says
  EXPECT_DOUBLE_EQ(board.celsius.value(), 41);
  const uint64_t loaded = telemetry->copied.to_card;
  EXPECT_GT(loaded, 100'000u);  // the weights
  const uint64_t read = telemetry->copied.from_card;
  const auto pages = *engine->pages().allocate(1);
  ASSERT_TRUE(engine->run(chunk(Stage::decode, pages, 0, {1})).has_value());
  EXPECT_GT(telemetry->copied.to_card, loaded);
  EXPECT_GT(telemetry->copied.from_card, read);

  DeviceTelemetry nowhere;
  EXPECT_FALSE(nowhere.board().watts.has_value());
  nowhere.bdf = "0000:ff:1f.7";
  EXPECT_FALSE(nowhere.board().celsius.has_value());
}

TEST_F(EngineTest, ResultsDoNotDependOnStageOrChunks) {
  const auto engine = open();
  ASSERT_NE(engine, nullptr);
  const auto prompt = tokens(70);
  const auto whole_pages = *engine->pages().allocate(3);
  const auto whole = engine->run(chunk(Stage::prefill, whole_pages, 0, prompt));
  ASSERT_TRUE(whole.has_value()) << whole.error().message;
  const RowOutput& expected = whole->rows.back();
  ASSERT_EQ(expected.top_ids.size(), 64u);
  EXPECT_EQ(expected.argmax, expected.top_ids[0]);
  EXPECT_EQ(expected.max, expected.top_logits[0]);
  EXPECT_TRUE(std::isfinite(expected.log_sum_exp));
  const std::vector<float> residual(expected.residual.begin(), expected.residual.end());
  const std::vector<float> final_norm(expected.final_norm.begin(), expected.final_norm.end());
  EXPECT_EQ(residual.size(), 256u);

  // Logits of the row agree with its result.
  const auto logits = engine->logits(Stage::prefill, 69);
  ASSERT_TRUE(logits.has_value()) << logits.error().message;
  ASSERT_EQ(logits->size(), 1024u);
  for (size_t i = 0; i < 64; ++i) {
    EXPECT_EQ((*logits)[expected.top_ids[i]], expected.top_logits[i]);
  }
  EXPECT_EQ(expected.target_logprob, (*logits)[0] - expected.log_sum_exp);

  // The same prompt: a chunk of 33, then one by one in the decode stage.
  const auto pages = *engine->pages().allocate(3);
  const std::vector<uint32_t> first(prompt.begin(), prompt.begin() + 33);
  ASSERT_TRUE(engine->run(chunk(Stage::prefill, pages, 0, first)).has_value());
  for (uint32_t position = 33; position < 70; ++position) {
    const auto step = engine->run(chunk(Stage::decode, pages, position, {prompt[position]}));
    ASSERT_TRUE(step.has_value()) << step.error().message;
    if (position < 69) continue;
    const RowOutput& last = step->rows[0];
    EXPECT_TRUE(std::equal(residual.begin(), residual.end(), last.residual.begin()));
    EXPECT_TRUE(std::equal(final_norm.begin(), final_norm.end(), last.final_norm.begin()));
  }
}

TEST_F(EngineTest, BothStagesMayRunAtOnce) {
  const auto engine = open();
  ASSERT_NE(engine, nullptr);
  const auto a = *engine->pages().allocate(4);
  const auto b = *engine->pages().allocate(4);
  const auto alone_a = engine->run(chunk(Stage::prefill, a, 0, tokens(100, 1)));
  ASSERT_TRUE(alone_a.has_value());
  const uint32_t argmax_a = alone_a->rows.back().argmax;
  ASSERT_TRUE(engine->run(chunk(Stage::prefill, b, 0, tokens(40, 2))).has_value());
  const auto alone_b = engine->run(chunk(Stage::decode, b, 40, {7}));
  ASSERT_TRUE(alone_b.has_value());
  const uint32_t argmax_b = alone_b->rows[0].argmax;

  for (int repeat = 0; repeat < 5; ++repeat) {
    ASSERT_TRUE(engine->start(chunk(Stage::prefill, a, 0, tokens(100, 1))).has_value());
    ASSERT_TRUE(engine->start(chunk(Stage::decode, b, 40, {7})).has_value());
    EXPECT_TRUE(engine->running(Stage::prefill));
    EXPECT_TRUE(engine->running(Stage::decode));
    const auto decode = engine->wait(Stage::decode);
    ASSERT_TRUE(decode.has_value()) << decode.error().message;
    const auto prefill = engine->wait(Stage::prefill);
    ASSERT_TRUE(prefill.has_value()) << prefill.error().message;
    EXPECT_EQ(decode->rows[0].argmax, argmax_b);
    EXPECT_EQ(prefill->rows.back().argmax, argmax_a);
    EXPECT_FALSE(engine->running(Stage::prefill));
    EXPECT_GT(prefill->kernel_time.count(), 0);
  }
}

TEST_F(EngineTest, FinishedSaysWhetherWaitWouldBlock) {
  const auto engine = open();
  ASSERT_NE(engine, nullptr);
  EXPECT_TRUE(engine->finished(Stage::decode));
  const auto pages = *engine->pages().allocate(8);
  ASSERT_TRUE(engine->start(chunk(Stage::prefill, pages, 0, tokens(200))).has_value());
  EXPECT_FALSE(engine->finished(Stage::prefill));
  while (!engine->finished(Stage::prefill)) ::usleep(200);
  ASSERT_TRUE(engine->wait(Stage::prefill).has_value());
}

TEST_F(EngineTest, RefusesWhatItsCallerMayNotAsk) {
  const auto engine = open();
  ASSERT_NE(engine, nullptr);
  const auto pages = *engine->pages().allocate(1);
  EXPECT_THROW((void)engine->wait(Stage::decode), std::invalid_argument);
  EXPECT_THROW((void)engine->logits(Stage::decode, 0), std::invalid_argument);
  EXPECT_THROW((void)engine->start(chunk(Stage::decode, pages, 0, tokens(17))),
               std::invalid_argument);
  EXPECT_THROW((void)engine->start(chunk(Stage::decode, pages, 32, {1})), std::invalid_argument);
  ASSERT_TRUE(engine->start(chunk(Stage::decode, pages, 0, {1})).has_value());
  EXPECT_THROW((void)engine->start(chunk(Stage::decode, pages, 1, {1})), std::invalid_argument);
  ASSERT_TRUE(engine->wait(Stage::decode).has_value());
}

}  // namespace
}  // namespace flexllm::host
