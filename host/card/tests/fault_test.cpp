// The card misbehaving on purpose, and coming back: through the real XRT API and the control
// socket. Each test starts and ends with a card that works.
#include <chrono>
#include <cstring>
#include <optional>
#include <string>
#include <thread>

#include "host/card/tests/demo_card.h"

namespace flexllm::card::test {
namespace {

using namespace std::chrono_literals;
using nlohmann::json;
using ::testing::HasSubstr;
using ::testing::ThrowsMessage;

constexpr auto kToCard = XCL_BO_SYNC_BO_TO_DEVICE;
constexpr auto kFromCard = XCL_BO_SYNC_BO_FROM_DEVICE;

// Before main: the socket is made at XRT's first look at the card.
const bool named = (name_control_socket(), true);

// Everything a host holds while it computes; closing it closes all handles of the card.
struct Session {
  DemoCard card;
  xrt::kernel spin = card.kernel("spin");
  xrt::bo out = card.buffer(spin, 1);

  xrt::run run(unsigned ms = 1) {
    xrt::run fresh(spin);
    fresh.set_arg(0, ms);
    fresh.set_arg(1, out);
    return fresh;
  }
  ert_cmd_state launch() {
    xrt::run fresh = run();
    fresh.start();
    return fresh.wait();
  }
};

bool inject(const std::string& rule) {
  return control_ok(R"({"op": "inject", "fault": )" + rule + "}");
}

json stats() { return control(R"({"op": "stats"})").at("cards").at(0); }

int reset_command() {
  return std::system(
      ("env -u LD_PRELOAD " CARD_TEST_RESET " " + std::string("0000:d8:00.1")).c_str());
}

class Fault : public ::testing::Test {
 protected:
  void SetUp() override { session.emplace(); }
  void TearDown() override {
    session.reset();
    EXPECT_TRUE(control_ok(R"({"op": "clear"})"));
    EXPECT_TRUE(control_ok(R"({"op": "reset", "card": 0})"));
  }

  std::optional<Session> session;
};

TEST_F(Fault, HungKernelNeedsTheWholeResetLadder) {
  session->out.map<int*>()[5] = 12345;
  session->out.sync(kToCard);
  ASSERT_TRUE(inject(R"({"fault": "hang", "kernel": "spin"})"));
  {
    xrt::run run = session->run();
    run.start();
    EXPECT_EQ(run.wait(20ms), ERT_CMD_STATE_TIMEOUT);
    const auto busy = [] { return stats().at("compute_units").at(3).at("busy").get<bool>(); };
    while (!busy()) std::this_thread::sleep_for(1ms);
    EXPECT_EQ(run.abort(), ERT_CMD_STATE_NORESPONSE);
    EXPECT_TRUE(busy());
  }
  // Other compute units work on.
  xrt::kernel vadd = session->card.kernel("vadd:{vadd_1}");
  {
    xrt::bo a = session->card.buffer(vadd, 0);
    xrt::bo b = session->card.buffer(vadd, 1);
    xrt::bo c = session->card.buffer(vadd, 2);
    EXPECT_EQ(vadd(a, b, c, 4u).wait(), ERT_CMD_STATE_COMPLETED);
  }
  vadd = {};
  EXPECT_NE(reset_command(), 0);  // handles are open
  session.reset();
  EXPECT_TRUE(stats().at("stuck").get<bool>());
  EXPECT_THAT([] { DemoCard(); }, ThrowsMessage<std::exception>(HasSubstr("failed to load")));
  ASSERT_EQ(reset_command(), 0);
  EXPECT_EQ(stats().at("bitstream"), "");
  session.emplace();
  session->out.sync(kFromCard);
  EXPECT_EQ(session->out.map<int*>()[5], 0);  // memory was lost
  EXPECT_EQ(session->launch(), ERT_CMD_STATE_COMPLETED);
}

TEST_F(Fault, NthLaunchFails) {
  ASSERT_TRUE(inject(R"({"fault": "fail", "kernel": "spin", "nth": 2})"));
  EXPECT_EQ(session->launch(), ERT_CMD_STATE_COMPLETED);
  EXPECT_EQ(session->launch(), ERT_CMD_STATE_ERROR);
  EXPECT_EQ(session->launch(), ERT_CMD_STATE_COMPLETED);
}

TEST_F(Fault, OtherKernelsAreSpared) {
  ASSERT_TRUE(inject(R"({"fault": "fail", "kernel": "vadd", "times": 0})"));
  ASSERT_TRUE(inject(R"({"fault": "fail", "card": 1, "times": 0})"));
  EXPECT_EQ(session->launch(), ERT_CMD_STATE_COMPLETED);
}

TEST_F(Fault, SlowLaunchEndsLate) {
  ASSERT_TRUE(inject(R"({"fault": "slow", "ms": 150})"));
  const auto start = std::chrono::steady_clock::now();
  EXPECT_EQ(session->launch(), ERT_CMD_STATE_COMPLETED);
  EXPECT_GE(std::chrono::steady_clock::now() - start, 150ms);
}

TEST_F(Fault, SlowLaunchCanBeAborted) {
  ASSERT_TRUE(inject(R"({"fault": "slow", "ms": 600000})"));
  xrt::run run = session->run();
  run.start();
  std::this_thread::sleep_for(20ms);
  EXPECT_EQ(run.abort(), ERT_CMD_STATE_ABORT);
}

// A copy that takes long holds nothing that other copies need.
TEST_F(Fault, SlowCopyDelaysNoOther) {
  ASSERT_TRUE(inject(R"({"fault": "slow", "on": "sync", "bank": "HBM[8]", "ms": 1000})"));
  std::atomic<bool> done{false};
  std::thread slow([&] {
    session->out.sync(kToCard);
    done = true;
  });
  xrt::bo other(session->card.device, 4096, 9);
  int meanwhile = 0;
  while (!done) {
    other.sync(kToCard);
    if (!done) ++meanwhile;
  }
  slow.join();
  EXPECT_GT(meanwhile, 0);
}

TEST_F(Fault, CopyFailsInOneDirection) {
  ASSERT_TRUE(inject(R"({"fault": "sync_fails", "bank": "HBM[8]", "to_card": false})"));
  EXPECT_NO_THROW(session->out.sync(kToCard));
  EXPECT_THAT([&] { session->out.sync(kFromCard); },
              ThrowsMessage<std::exception>(HasSubstr("Input/output error")));
  EXPECT_NO_THROW(session->out.sync(kFromCard));
}

TEST_F(Fault, BankIsFullUntilTheRuleIsCleared) {
  ASSERT_TRUE(inject(R"({"fault": "bank_full", "bank": "HBM[8]"})"));
  EXPECT_THROW(session->card.buffer(session->spin, 1), std::bad_alloc);
  EXPECT_NO_THROW(xrt::bo(session->card.device, 4096, 7));
  ASSERT_TRUE(control_ok(R"({"op": "clear"})"));
  EXPECT_NO_THROW(session->card.buffer(session->spin, 1));
}

TEST_F(Fault, NodeMayNotBeOpened) {
  session.reset();
  ASSERT_TRUE(inject(R"({"fault": "access_denied", "times": 1})"));
  EXPECT_ANY_THROW(xrt::device(0u));
  EXPECT_NO_THROW(session.emplace());
}

TEST_F(Fault, CardDisappears) {
  ASSERT_TRUE(inject(R"({"fault": "disappear", "on": "sync"})"));
  EXPECT_THAT([&] { session->out.sync(kToCard); },
              ThrowsMessage<std::exception>(HasSubstr("No such device")));
  EXPECT_ANY_THROW(session->launch());
  EXPECT_TRUE(stats().at("gone").get<bool>());
  session.reset();
  EXPECT_ANY_THROW(xrt::device(0u));
  ASSERT_EQ(reset_command(), 0);
  session.emplace();
  EXPECT_EQ(session->launch(), ERT_CMD_STATE_COMPLETED);
}

TEST_F(Fault, CardDisappearsDuringALaunch) {
  ASSERT_TRUE(inject(R"({"fault": "disappear"})"));
  xrt::run run = session->run();
  run.start();
  while (!stats().at("gone").get<bool>()) std::this_thread::sleep_for(1ms);
  EXPECT_EQ(run.wait(20ms), ERT_CMD_STATE_TIMEOUT);
  EXPECT_ANY_THROW(run.abort());
}

TEST_F(Fault, AnotherBitstreamIsLoadedUnderneath) {
  const std::string ours = session->card.uuid.to_string();
  ASSERT_TRUE(control_ok(R"({"op": "foreign_bitstream"})"));
  EXPECT_NE(stats().at("bitstream"), ours);
  EXPECT_ANY_THROW(session->launch());
  EXPECT_ANY_THROW(session->card.kernel("vadd"));
  session.reset();
  session.emplace();  // no reset needed: load again
  EXPECT_EQ(stats().at("bitstream"), ours);
  EXPECT_EQ(session->launch(), ERT_CMD_STATE_COMPLETED);
}

TEST_F(Fault, StatisticsCount) {
  const json before = stats();
  EXPECT_EQ(session->launch(), ERT_CMD_STATE_COMPLETED);
  session->out.sync(kToCard);
  session->out.sync(kFromCard, 1024, 0);
  const json after = stats();
  const auto grown = [&](const char* key) {
    return after.at(key).get<std::uint64_t>() - before.at(key).get<std::uint64_t>();
  };
  EXPECT_EQ(grown("bytes_to_card"), 4096u);
  EXPECT_EQ(grown("bytes_from_card"), 1024u);
  const json& unit = after.at("compute_units").at(3);
  EXPECT_EQ(unit.at("name"), "spin:spin_1");
  EXPECT_EQ(unit.at("launches"), 1);
  EXPECT_GE(unit.at("busy_seconds").get<double>(), 0.001);
  EXPECT_EQ(after.at("banks").at(0).at("tag"), "HBM[8]");
  EXPECT_EQ(after.at("open_handles"), 1);
}

TEST_F(Fault, WrongCommandsAreExplained) {
  const auto error = [](const std::string& line) {
    return control(line).value("error", std::string());
  };
  EXPECT_THAT(error("{"), HasSubstr("parse"));
  EXPECT_THAT(error(R"({"op": "fly"})"), HasSubstr("unknown op 'fly'"));
  EXPECT_THAT(error(R"({"op": "reset", "card": 3})"), HasSubstr("no card 3"));
  EXPECT_THAT(error(R"({"op": "reset", "card": 0})"), HasSubstr("1 open handles"));
  EXPECT_THAT(error(R"({"op": "inject", "fault": {"fault": "hang", "bank": "HBM[0]"}})"),
              HasSubstr("bank: is not a key of 'hang'"));
}

}  // namespace
}  // namespace flexllm::card::test
