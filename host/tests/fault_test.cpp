// The engine on a card that misbehaves on purpose.
#include <gtest/gtest.h>
#include <stdlib.h>
#include <unistd.h>

#include <string>

#include "host/tests/card_control.h"
#include "host/tests/engine_fixture.h"

namespace flexllm::host {
namespace {

using Kind = DeviceError::Kind;
using std::chrono::milliseconds;

class FaultTest : public EngineTest {
 protected:
  void SetUp() override {
    EngineTest::SetUp();
    options_.launch_timeout = milliseconds(400);
    options_.recovery_timeout = milliseconds(2000);
    options_.reset_command = std::string(FLEXLLM_TEST_RESET) + " 0";
  }
  void TearDown() override {
    EXPECT_TRUE(test::control(R"({"op": "clear"})"));
    EngineTest::TearDown();
  }
  static void inject(const std::string& fault) {
    ASSERT_TRUE(test::control(R"({"op": "inject", "fault": )" + fault + "}"));
  }
};

uint32_t argmax_of(const tl::expected<LaunchResult, DeviceError>& result) {
  EXPECT_TRUE(result.has_value()) << result.error().message;
  return result ? result->rows.back().argmax : UINT32_MAX;
}

TEST_F(FaultTest, AHungKernelIsATimeoutAndTheCardComesBackAfterTheResetLadder) {
  const auto engine = open();
  ASSERT_NE(engine, nullptr);
  const auto pages = *engine->pages().allocate(2);
  const Launch launch = chunk(Stage::prefill, pages, 0, tokens(50));
  const uint32_t expected = argmax_of(engine->run(launch));

  for (const Stage stage : {Stage::prefill, Stage::decode}) {
    inject(R"({"fault": "hang"})");
    const auto hung = engine->run(chunk(stage, pages, 0, tokens(5)));
    ASSERT_FALSE(hung.has_value());
    EXPECT_EQ(hung.error().kind, Kind::launch_timeout) << hung.error().message;
    EXPECT_TRUE(engine->running(stage));
    const auto refused = engine->start(launch);
    ASSERT_FALSE(refused.has_value());
    EXPECT_EQ(refused.error().kind, Kind::lost);

    const uint32_t available = engine->pages().available();
    const auto recovered = engine->recover();
    ASSERT_TRUE(recovered.has_value()) << recovered.error().message;
    EXPECT_FALSE(engine->running(stage));
    EXPECT_EQ(engine->pages().available(), available);
    EXPECT_EQ(argmax_of(engine->run(launch)), expected);
  }
  EXPECT_EQ(engine->telemetry()->timeouts, 2u);
  EXPECT_EQ(engine->telemetry()->resets, 2u);
}

TEST_F(FaultTest, AHungKernelBesideAGoodOne) {
  const auto engine = open();
  ASSERT_NE(engine, nullptr);
  const auto a = *engine->pages().allocate(2);
  const auto b = *engine->pages().allocate(2);
  inject(R"({"fault": "hang", "kernel": "prefill"})");
  ASSERT_TRUE(engine->start(chunk(Stage::prefill, a, 0, tokens(5))).has_value());
  EXPECT_TRUE(engine->run(chunk(Stage::decode, b, 0, {1})).has_value());
  EXPECT_FALSE(engine->finished(Stage::prefill));
  EXPECT_EQ(engine->wait(Stage::prefill).error().kind, Kind::launch_timeout);
  ASSERT_TRUE(engine->recover().has_value());
  EXPECT_TRUE(engine->run(chunk(Stage::prefill, a, 0, tokens(5))).has_value());
}

TEST_F(FaultTest, AFailedResetIsReportedAndMayBeTriedAgain) {
  const std::filesystem::path script = folder_ / "reset";
  options_.reset_command = "test -e " + script.string();
  options_.recovery_timeout = milliseconds(0);
  const auto engine = open();
  ASSERT_NE(engine, nullptr);
  const auto pages = *engine->pages().allocate(1);
  const auto failed = engine->recover();
  ASSERT_FALSE(failed.has_value());
  EXPECT_EQ(failed.error().kind, Kind::reset_failed);
  EXPECT_NE(failed.error().message.find("returned 1"), std::string::npos) << failed.error().message;
  EXPECT_FALSE(engine->start(chunk(Stage::decode, pages, 0, {1})).has_value());

  std::filesystem::create_directory(script);
  ASSERT_TRUE(engine->recover().has_value());
  EXPECT_TRUE(engine->run(chunk(Stage::decode, pages, 0, {1})).has_value());
}

TEST_F(FaultTest, AFailedLaunchLeavesTheEngineUsable) {
  const auto engine = open();
  ASSERT_NE(engine, nullptr);
  const auto pages = *engine->pages().allocate(1);
  inject(R"({"fault": "fail"})");
  const auto failed = engine->run(chunk(Stage::decode, pages, 0, {1}));
  ASSERT_FALSE(failed.has_value());
  EXPECT_EQ(failed.error().kind, Kind::launch_failed) << failed.error().message;
  EXPECT_TRUE(engine->run(chunk(Stage::decode, pages, 0, {1})).has_value());
}

TEST_F(FaultTest, AFailedCopyNamesTheBufferAndNeedsRecovery) {
  options_.reset_command.clear();
  const auto engine = open();
  ASSERT_NE(engine, nullptr);
  const auto pages = *engine->pages().allocate(1);
  const Launch launch = chunk(Stage::decode, pages, 0, {1});
  for (const char* to_card : {"true", "false"}) {
    inject(std::string(R"({"fault": "sync_fails", "bank": "HBM[26]", "to_card": )") + to_card +
           "}");
    const auto failed = engine->run(launch);
    ASSERT_FALSE(failed.has_value());
    EXPECT_EQ(failed.error().kind, Kind::copy_failed);
    EXPECT_NE(failed.error().message.find("in HBM[26]"), std::string::npos)
        << failed.error().message;
    EXPECT_FALSE(engine->start(launch).has_value());
    ASSERT_TRUE(engine->recover().has_value());
    EXPECT_TRUE(engine->run(launch).has_value());
  }
}

TEST_F(FaultTest, ACardThatLeavesTheBusIsLostUntilItIsReset) {
  const auto engine = open();
  ASSERT_NE(engine, nullptr);
  const auto pages = *engine->pages().allocate(1);
  const Launch launch = chunk(Stage::decode, pages, 0, {1});
  ASSERT_TRUE(test::control(R"({"op": "disappear", "card": "0"})"));
  const auto failed = engine->run(launch);
  ASSERT_FALSE(failed.has_value());
  EXPECT_EQ(failed.error().kind, Kind::lost) << failed.error().message;
  const auto recovered = engine->recover();
  ASSERT_TRUE(recovered.has_value()) << recovered.error().message;
  EXPECT_TRUE(engine->run(launch).has_value());
}

TEST_F(FaultTest, AForeignBitstreamUnderneathIsNoticed) {
  const auto engine = open();
  ASSERT_NE(engine, nullptr);
  const auto pages = *engine->pages().allocate(1);
  const Launch launch = chunk(Stage::decode, pages, 0, {1});
  ASSERT_TRUE(test::control(R"({"op": "foreign_bitstream", "card": "0"})"));
  EXPECT_FALSE(engine->run(launch).has_value());
  ASSERT_TRUE(engine->recover().has_value());
  EXPECT_TRUE(engine->run(launch).has_value());
}

TEST_F(FaultTest, AFullBankSaysWhichAndHowMuch) {
  inject(R"({"fault": "bank_full", "bank": "HBM[5]"})");
  const auto engine = Engine::open(options_, model_);
  ASSERT_FALSE(engine.has_value());
  EXPECT_EQ(engine.error().kind, Kind::out_of_memory);
  EXPECT_NE(engine.error().message.find("w5 in HBM[5]"), std::string::npos)
      << engine.error().message;
}

TEST_F(FaultTest, ANodeThatMayNotBeOpened) {
  inject(R"({"fault": "access_denied"})");
  const auto engine = Engine::open(options_, model_);
  ASSERT_FALSE(engine.has_value());
  EXPECT_EQ(engine.error().kind, Kind::access_denied) << engine.error().message;
  EXPECT_NE(engine.error().message.find("/dev/dri/renderD"), std::string::npos);
}

TEST_F(FaultTest, ASlowLaunchIsWaitedFor) {
  const auto engine = open();
  ASSERT_NE(engine, nullptr);
  const auto pages = *engine->pages().allocate(1);
  inject(R"({"fault": "slow", "ms": 100})");
  const auto result = engine->run(chunk(Stage::decode, pages, 0, {1}));
  ASSERT_TRUE(result.has_value()) << result.error().message;
  EXPECT_GE(result->kernel_time, milliseconds(100));
}

}  // namespace
}  // namespace flexllm::host

int main(int argc, char** argv) {
  flexllm::host::test::name_control_socket();
  testing::InitGoogleTest(&argc, argv);
  return RUN_ALL_TESTS();
}
