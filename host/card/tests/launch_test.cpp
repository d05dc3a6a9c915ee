// Kernels, runs and their states: through the real XRT API.
#include <experimental/xrt_queue.h>

#include <atomic>
#include <chrono>
#include <cstring>
#include <thread>
#include <vector>

#include "host/card/tests/demo_card.h"

namespace flexllm::card::test {
namespace {

using namespace std::chrono_literals;
using ::testing::HasSubstr;
using ::testing::ThrowsMessage;

constexpr auto kToCard = XCL_BO_SYNC_BO_TO_DEVICE;
constexpr auto kFromCard = XCL_BO_SYNC_BO_FROM_DEVICE;
constexpr unsigned kCount = 4096;

class Launch : public ::testing::Test {
 protected:
  Launch() {
    for (unsigned i = 0; i < kCount; ++i) {
      a.map<int*>()[i] = static_cast<int>(i);
      b.map<int*>()[i] = 1;
    }
    a.sync(kToCard);
    b.sync(kToCard);
    std::memset(out.map(), 0, out.size());
    out.sync(kToCard);
  }

  const int* result() {
    out.sync(kFromCard);
    return out.map<const int*>();
  }

  xrt::run spinning(unsigned ms) {
    xrt::run run(spin);
    run.set_arg(0, ms);
    run.set_arg(1, spin_out);
    return run;
  }

  DemoCard card;
  xrt::device& device = card.device;
  xrt::kernel vadd = card.kernel("vadd:{vadd_1}");
  xrt::bo a = card.buffer(vadd, 0, kCount * 4);
  xrt::bo b = card.buffer(vadd, 1, kCount * 4);
  xrt::bo out = card.buffer(vadd, 2, kCount * 4);
  xrt::kernel spin = card.kernel("spin");
  xrt::bo spin_out = card.buffer(spin, 1);
};

TEST_F(Launch, ComputesOnTheCard) {
  EXPECT_EQ(vadd(a, b, out, kCount).wait(), ERT_CMD_STATE_COMPLETED);
  EXPECT_EQ(out.map<int*>()[7], 0);  // not synced yet
  for (unsigned i = 0; i < kCount; ++i) ASSERT_EQ(result()[i], static_cast<int>(i) + 1);
}

TEST_F(Launch, ArgumentsKnowTheirBanks) {
  const xrt::kernel second = card.kernel("vadd:{vadd_2}");
  EXPECT_EQ(vadd.group_id(0), 0);
  EXPECT_EQ(vadd.group_id(2), 2);
  EXPECT_EQ(second.group_id(0), 4);
  EXPECT_ANY_THROW(vadd.group_id(3));  // a scalar
}

TEST_F(Launch, RunsAreReused) {
  xrt::run run(vadd);
  run.set_arg(0, a);
  run.set_arg("b", b);
  run.set_arg("out", out);
  for (const unsigned n : {10u, 20u, 30u}) {
    run.set_arg("n", n);
    run.start();
    EXPECT_EQ(run.wait(), ERT_CMD_STATE_COMPLETED);
  }
  EXPECT_EQ(result()[29], 30);
  EXPECT_EQ(result()[30], 0);
  EXPECT_ANY_THROW(run.set_arg("zz", 1));
  EXPECT_ANY_THROW(run.set_arg(9, 1));
}

TEST_F(Launch, TakesSubBuffers) {
  xrt::bo part_in(a, 1024, 1024);
  xrt::bo part_out(out, 1024, 2048);
  vadd(part_in, b, part_out, 256u).wait();
  EXPECT_EQ(result()[511], 0);
  EXPECT_EQ(result()[512], 257);
  EXPECT_EQ(result()[767], 512);
}

TEST_F(Launch, TakesScalarsOfAllSizes) {
  xrt::kernel saxpy = card.kernel("saxpy");
  xrt::bo x = card.buffer(saxpy, 1);
  xrt::bo y = card.buffer(saxpy, 2);
  EXPECT_EQ(x.address(), 0x4000000000u);
  for (int i = 0; i < 100; ++i) {
    x.map<float*>()[i] = static_cast<float>(i);
    y.map<float*>()[i] = 1;
  }
  x.sync(kToCard);
  y.sync(kToCard);
  saxpy(2.5f, x, y, 100ul).wait();
  y.sync(kFromCard);
  EXPECT_EQ(y.map<float*>()[10], 26.0f);
}

// Thirty address arguments, as many as our kernels have; each reaches to the end of its bank.
TEST_F(Launch, TakesThirtyBuffersWithTheirExtents) {
  xrt::kernel extents = card.kernel("extents");
  std::vector<xrt::bo> buffers;
  std::vector<xrt::bo> before;
  xrt::run run(extents);
  for (int i = 0; i < 30; ++i) {
    before.emplace_back(device, 4096, extents.group_id(i));
    buffers.emplace_back(device, 4096, extents.group_id(i));
    run.set_arg(i, buffers.back());
  }
  run.start();
  ASSERT_EQ(run.wait(), ERT_CMD_STATE_COMPLETED);
  buffers.back().sync(kFromCard);
  const auto* reach = buffers.back().map<const unsigned long*>();
  for (int i = 0; i < 30; ++i) {
    constexpr unsigned long kBank = 256ul << 20;
    EXPECT_EQ(reach[i], kBank - buffers[static_cast<std::size_t>(i)].address() % kBank) << i;
  }
}

// XRT hides a wrong bank: it clones inputs, and outputs stay in the clone.
TEST_F(Launch, WrongBankIsClonedByXrt) {
  xrt::bo elsewhere(device, kCount * 4, 31);
  std::memcpy(elsewhere.map(), a.map(), kCount * 4);
  elsewhere.sync(kToCard);
  vadd(elsewhere, b, out, kCount).wait();
  EXPECT_EQ(result()[9], 10);
  std::memset(elsewhere.map(), 0, kCount * 4);
  elsewhere.sync(kToCard);
  vadd(a, b, elsewhere, kCount).wait();
  elsewhere.sync(kFromCard);
  EXPECT_EQ(elsewhere.map<int*>()[9], 0);
}

TEST_F(Launch, PicksTheComputeUnitOfItsBanks) {
  const xrt::kernel second = card.kernel("vadd:{vadd_2}");
  xrt::kernel either = card.kernel("vadd");
  xrt::bo a2 = card.buffer(second, 0, kCount * 4);
  xrt::bo b2 = card.buffer(second, 1, kCount * 4);
  xrt::bo out2 = card.buffer(second, 2, kCount * 4);
  a2.copy(a, kCount * 4);
  b2.copy(b, kCount * 4);
  EXPECT_EQ(either(a2, b2, out2, kCount).wait(), ERT_CMD_STATE_COMPLETED);
  out2.sync(kFromCard);
  EXPECT_EQ(out2.map<int*>()[3], 4);
}

TEST_F(Launch, FailuresAreStates) {
  EXPECT_EQ(vadd(a, b, out, ~0u).wait(), ERT_CMD_STATE_ERROR);  // the kernel returns an error
  xrt::kernel broken = card.kernel("broken");                   // it throws
  EXPECT_EQ(broken(spin_out).wait(), ERT_CMD_STATE_ERROR);
  xrt::kernel ghost = card.kernel("ghost");  // the bitstream has no code for it
  EXPECT_EQ(ghost(spin_out).wait(), ERT_CMD_STATE_ERROR);
  EXPECT_EQ(vadd(a, b, out, kCount).wait(), ERT_CMD_STATE_COMPLETED);
}

TEST_F(Launch, WaitTimesOut) {
  xrt::run run = spinning(600000);
  run.start();
  EXPECT_EQ(run.wait(20ms), ERT_CMD_STATE_TIMEOUT);
  EXPECT_THAT([&] { run.start(); }, ThrowsMessage<std::exception>(HasSubstr("can't launch")));
  EXPECT_EQ(run.abort(), ERT_CMD_STATE_ABORT);
}

TEST_F(Launch, EndsAfterAWaitThatTimedOut) {
  xrt::run run = spinning(50);
  run.start();
  run.wait(1ms);
  EXPECT_EQ(run.wait(), ERT_CMD_STATE_COMPLETED);
  spin_out.sync(kFromCard);
  EXPECT_EQ(spin_out.map<int*>()[0], 50);
}

TEST_F(Launch, AbortsARunningKernel) {
  xrt::run run = spinning(600000);
  run.start();
  std::this_thread::sleep_for(20ms);
  EXPECT_EQ(run.abort(), ERT_CMD_STATE_ABORT);
  spin_out.sync(kFromCard);
  EXPECT_NE(spin_out.map<int*>()[0], 600000);
}

TEST_F(Launch, AbortsAQueuedLaunch) {
  xrt::run first = spinning(600000);
  xrt::run second = spinning(600000);
  first.start();
  second.start();
  EXPECT_EQ(second.abort(), ERT_CMD_STATE_ABORT);
  EXPECT_EQ(first.abort(), ERT_CMD_STATE_ABORT);
}

TEST_F(Launch, CallsBack) {
  std::atomic<int> state{0};
  xrt::run run = spinning(5);
  run.add_callback(
      ERT_CMD_STATE_COMPLETED,
      [](const void*, ert_cmd_state reached, void* out_state) {
        static_cast<std::atomic<int>*>(out_state)->store(reached);
      },
      &state);
  run.start();
  run.wait();
  while (state == 0) std::this_thread::sleep_for(1ms);
  EXPECT_EQ(state, ERT_CMD_STATE_COMPLETED);
}

TEST_F(Launch, CallbackComesBeforeTheStart) {
  xrt::run run = spinning(600000);
  run.start();
  EXPECT_ANY_THROW(run.add_callback(
      ERT_CMD_STATE_COMPLETED, [](const void*, ert_cmd_state, void*) {}, nullptr));
  run.abort();
}

TEST_F(Launch, WorksThroughAQueue) {
  xrt::queue queue;
  xrt::run run(vadd);
  run.set_arg(0, a);
  run.set_arg(1, b);
  run.set_arg(2, out);
  run.set_arg(3, kCount);
  queue.enqueue([&] { a.sync(kToCard); });
  queue.enqueue([&] {
    run.start();
    run.wait();
  });
  queue.enqueue([&] { out.sync(kFromCard); }).wait();
  EXPECT_EQ(out.map<int*>()[5], 6);
}

TEST_F(Launch, RegistersNeedExclusiveAccess) {
  EXPECT_ANY_THROW(vadd.read_register(0));
  EXPECT_ANY_THROW(
      xrt::kernel(device, card.uuid, "vadd:{vadd_1}", xrt::kernel::cu_access_mode::exclusive));
  xrt::kernel ghost(device, card.uuid, "ghost", xrt::kernel::cu_access_mode::exclusive);
  ghost.write_register(0x10, 0x1234);
  EXPECT_EQ(ghost.read_register(0x10), 0x1234u);
}

TEST_F(Launch, ComputeUnitsRunBesideEachOther) {
  xrt::run slow = spinning(600000);
  slow.start();
  EXPECT_EQ(vadd(a, b, out, kCount).wait(), ERT_CMD_STATE_COMPLETED);
  EXPECT_EQ(slow.abort(), ERT_CMD_STATE_ABORT);
}

TEST_F(Launch, ManyThreadsShareTwoComputeUnits) {
  xrt::kernel second = card.kernel("vadd:{vadd_2}");
  std::atomic<int> wrong{0};
  std::vector<std::thread> threads;
  for (int worker = 0; worker < 6; ++worker) {
    threads.emplace_back([&, worker] {
      xrt::kernel& kernel = worker % 2 == 0 ? vadd : second;
      xrt::bo x = card.buffer(kernel, 0);
      xrt::bo y = card.buffer(kernel, 1);
      xrt::bo z = card.buffer(kernel, 2);
      xrt::run run(kernel);
      run.set_arg(0, x);
      run.set_arg(1, y);
      run.set_arg(2, z);
      run.set_arg(3, 1024u);
      for (int i = 0; i < 50; ++i) {
        x.map<int*>()[3] = i;
        y.map<int*>()[3] = worker;
        x.sync(kToCard);
        y.sync(kToCard);
        run.start();
        if (run.wait() != ERT_CMD_STATE_COMPLETED) ++wrong;
        z.sync(kFromCard);
        if (z.map<int*>()[3] != i + worker) ++wrong;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(wrong, 0);
}

}  // namespace
}  // namespace flexllm::card::test
