// Buffers, banks and DMA: through the real XRT API.
#include <algorithm>
#include <chrono>
#include <cstring>
#include <memory>
#include <numeric>
#include <thread>
#include <vector>

#include "host/card/tests/demo_card.h"

namespace flexllm::card::test {
namespace {

using ::testing::HasSubstr;
using ::testing::ThrowsMessage;

constexpr std::size_t kMiB = 1u << 20;
constexpr auto kToCard = XCL_BO_SYNC_BO_TO_DEVICE;
constexpr auto kFromCard = XCL_BO_SYNC_BO_FROM_DEVICE;

TEST(BufferBeforeLoad, HasNoBank) {
  xrt::device device(0u);
  EXPECT_THROW(xrt::bo(device, 4096, 0), std::bad_alloc);
}

class Buffer : public ::testing::Test {
 protected:
  DemoCard card;
  xrt::device& device = card.device;
};

TEST_F(Buffer, NeedsABankWithRoom) {
  const auto device_only = xrt::bo::flags::device_only;
  EXPECT_THROW(xrt::bo(device, 0, 0), std::bad_alloc);
  EXPECT_THROW(xrt::bo(device, 4096, 77), std::bad_alloc);
  EXPECT_THROW(xrt::bo(device, 300 * kMiB, device_only, 0), std::bad_alloc);
  std::vector<xrt::bo> filling;
  for (int i = 0; i < 4; ++i) filling.emplace_back(device, 64 * kMiB, device_only, 3);
  EXPECT_THROW(xrt::bo(device, 4096, device_only, 3), std::bad_alloc);
  EXPECT_NO_THROW(xrt::bo(device, 4096, device_only, 4));
}

TEST_F(Buffer, GivesItsRoomBack) {
  for (int i = 0; i < 20; ++i) {
    EXPECT_NO_THROW(xrt::bo(device, 200 * kMiB, xrt::bo::flags::device_only, 3));
  }
}

TEST_F(Buffer, OfUserMemoryRoundTrips) {
  const std::unique_ptr<char, decltype(&std::free)> memory(
      static_cast<char*>(std::aligned_alloc(4096, 8192)), &std::free);
  std::memset(memory.get(), 7, 8192);
  xrt::bo buffer(device, memory.get(), 8192, 0);
  buffer.sync(kToCard);
  std::memset(memory.get(), 0, 8192);
  buffer.sync(kFromCard);
  EXPECT_EQ(memory.get()[5], 7);
  EXPECT_THAT([&] { xrt::bo(device, memory.get() + 1, 4096, 0); },
              ThrowsMessage<std::exception>(HasSubstr("not aligned")));
}

TEST_F(Buffer, OnDeviceOnlyCannotBeMapped) {
  xrt::bo buffer(device, 4096, xrt::bo::flags::device_only, 0);
  EXPECT_ANY_THROW(buffer.map());
}

TEST_F(Buffer, OnHostOnlyNeedsNoSync) {
  xrt::bo buffer(device, 4096, xrt::bo::flags::host_only, 0);
  buffer.map<int*>()[0] = 3;
  buffer.sync(kToCard);
  EXPECT_GE(buffer.address(), 0x7000000000u);
}

TEST_F(Buffer, ChecksBounds) {
  xrt::bo buffer(device, 4096, 0);
  int value = 5;
  buffer.write(&value, 4, 8);
  value = 0;
  buffer.read(&value, 4, 8);
  EXPECT_EQ(value, 5);
  EXPECT_ANY_THROW(buffer.write(&value, 4, 4096));
  EXPECT_ANY_THROW(buffer.sync(kToCard, 8192, 0));
  EXPECT_ANY_THROW(xrt::bo(buffer, 4096, 4096));
}

// Device memory is apart from host memory: only what is synced crosses.
TEST_F(Buffer, MovesOnlyWhatIsSynced) {
  xrt::bo buffer(device, 4096, 0);
  int* words = buffer.map<int*>();
  words[0] = 1;
  words[512] = 2;
  buffer.sync(kToCard, 4, 0);
  words[0] = words[512] = 9;
  buffer.sync(kFromCard);
  EXPECT_EQ(words[0], 1);
  EXPECT_EQ(words[512], 0);
}

TEST_F(Buffer, CopiesInsideTheCard) {
  xrt::bo source(device, 4096, 0);
  xrt::bo target(device, 4096, 20);
  source.map<int*>()[77] = 77;
  source.sync(kToCard);
  target.copy(source, 4096);
  target.sync(kFromCard);
  EXPECT_EQ(target.map<int*>()[77], 77);
}

TEST_F(Buffer, IsSharedByExport) {
  xrt::bo buffer(device, 4096, xrt::bo::flags::p2p, 0);
  const auto exported = buffer.export_buffer();
  xrt::bo imported(device, exported);
  buffer.map<int*>()[1] = 42;
  EXPECT_EQ(imported.map<int*>()[1], 42);
  ::close(exported);
}

TEST_F(Buffer, LiesWhereItsBankLies) {
  EXPECT_EQ(xrt::bo(device, 4096, 0).address(), 0u);  // zero is an address
  EXPECT_EQ(xrt::bo(device, 4096, 5).address(), 5 * 256 * kMiB);
  EXPECT_EQ(xrt::bo(device, 4096, 32).address(), 0x4000000000u);  // DDR[0]
}

TEST_F(Buffer, LargerThanAnHbmBankFitsInDdr) {
  EXPECT_NO_THROW(xrt::bo(device, 1024 * kMiB, xrt::bo::flags::device_only, 33));
}

// Copies into different banks do not wait for each other; what they leave is right.
TEST_F(Buffer, SyncsInParallel) {
  constexpr int kBanks = 8;
  constexpr std::size_t kWords = 4 * kMiB / sizeof(std::uint32_t);
  std::vector<xrt::bo> buffers;
  for (int bank = 0; bank < kBanks; ++bank) {
    buffers.emplace_back(device, kWords * sizeof(std::uint32_t), 8 + bank);
  }
  std::vector<std::thread> threads;
  std::vector<int> wrong(kBanks, 0);
  for (int bank = 0; bank < kBanks; ++bank) {
    threads.emplace_back([&, bank] {
      xrt::bo& buffer = buffers[static_cast<std::size_t>(bank)];
      auto* words = buffer.map<std::uint32_t*>();
      for (int round = 0; round < 4; ++round) {
        const auto first = static_cast<std::uint32_t>(1000 * bank + round);
        std::iota(words, words + kWords, first);
        buffer.sync(kToCard);
        std::fill(words, words + kWords, 0u);
        buffer.sync(kFromCard);
        if (words[0] != first || words[kWords - 1] != first + kWords - 1) {
          ++wrong[static_cast<std::size_t>(bank)];
        }
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_THAT(wrong, ::testing::Each(0));
}

}  // namespace
}  // namespace flexllm::card::test
