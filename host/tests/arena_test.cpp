#include "host/arena.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <stdexcept>

#include "host/device.h"
#include "host/memory_map.h"

namespace flexllm::host {
namespace {

using Kind = DeviceError::Kind;

constexpr uint64_t kMiB = uint64_t{1} << 20;

// A card with both kernels open, as a session has it.
class Arena : public testing::TestWithParam<bool> {
 protected:
  void SetUp() override {
    map_ = read_memory_map(FLEXLLM_TEST_MEMORY_MAP).value();
    device_.emplace(Device::open("0").value());
    ASSERT_TRUE(device_->load(FLEXLLM_TEST_BITSTREAM, map_).has_value());
    for (const KernelMap& kernel : map_.kernels) {
      kernels_.push_back(device_->kernel(kernel).value());
    }
    memory_.emplace(CardMemory::open(*device_, map_.banks, 24, GetParam(), copied_).value());
  }

  MemoryMap map_;
  std::optional<Device> device_;
  std::vector<xrt::kernel> kernels_;
  std::optional<CardMemory> memory_;
  std::shared_ptr<CopyCounters> copied_ = std::make_shared<CopyCounters>();
};

INSTANTIATE_TEST_SUITE_P(CopyPaths, Arena, testing::Bool(),
                         [](const auto& path) { return path.param ? "Staged" : "Mapped"; });

std::vector<std::byte> pattern(size_t bytes) {
  std::vector<std::byte> out(bytes);
  for (size_t i = 0; i < bytes; ++i) out[i] = static_cast<std::byte>(i * 131 + (i >> 12));
  return out;
}

TEST_P(Arena, TakesTheWayItWasAskedFor) {
  EXPECT_EQ(memory_->copy_path(), GetParam() ? CopyPath::staged : CopyPath::mapped);
}

TEST_P(Arena, BringsBytesToTheCardAndBack) {
  auto buffer = memory_->allocate("w3", 3, 10 * kMiB, HostAccess::transfer);
  ASSERT_TRUE(buffer.has_value()) << buffer.error().message;
  const std::vector<std::byte> sent = pattern(9 * kMiB + 64);  // more than two staging buffers
  const uint64_t before = copied_->to_card;
  ASSERT_TRUE(buffer->write(192, sent).has_value());
  std::vector<std::byte> returned(sent.size());
  ASSERT_TRUE(buffer->read(192, returned).has_value());
  EXPECT_EQ(sent, returned);
  EXPECT_EQ(copied_->to_card - before, sent.size());
  std::vector<std::byte> part(64);
  const uint64_t read = copied_->from_card;
  ASSERT_TRUE(buffer->read(192 + 5 * kMiB, part).has_value());
  EXPECT_EQ(copied_->from_card - read, part.size());
  EXPECT_TRUE(std::equal(part.begin(), part.end(), sent.begin() + 5 * kMiB));
}

TEST_P(Arena, AMappedBufferIsCopiedOnDemand) {
  auto buffer = memory_->allocate("desc", 20, 8192, HostAccess::mapped);
  ASSERT_TRUE(buffer.has_value()) << buffer.error().message;
  ASSERT_EQ(buffer->words().size(), 2048u);
  buffer->words()[5] = 42;
  ASSERT_TRUE(buffer->to_card(4096).has_value());
  buffer->words()[5] = 0;
  ASSERT_TRUE(buffer->from_card(4096).has_value());
  EXPECT_EQ(buffer->words()[5], 42u);
}

TEST_P(Arena, RoundsSizesUpAndRefusesCopiesOutside) {
  auto buffer = memory_->allocate("w0", 0, 1, HostAccess::transfer);
  ASSERT_TRUE(buffer.has_value());
  EXPECT_EQ(buffer->bytes(), 4096u);
  EXPECT_THROW((void)buffer->write(4096, pattern(64)), std::out_of_range);
  EXPECT_THROW((void)buffer->write(4032, pattern(128)), std::out_of_range);
  EXPECT_THROW((void)buffer->write(8, pattern(64)), std::out_of_range);
  EXPECT_THROW((void)buffer->write(0, pattern(63)), std::out_of_range);
}

TEST_P(Arena, AFullBankIsASentence) {
  auto first = memory_->allocate("w3", 3, 200 * kMiB, HostAccess::none);
  ASSERT_TRUE(first.has_value()) << first.error().message;
  EXPECT_EQ(memory_->available(3), 56 * kMiB);
  const auto second = memory_->allocate("more", 3, 57 * kMiB, HostAccess::none);
  ASSERT_FALSE(second.has_value());
  EXPECT_EQ(second.error().kind, Kind::out_of_memory);
  EXPECT_EQ(second.error().message,
            "more needs 57.0 MiB of HBM[3] (256.0 MiB), of which 56.0 MiB are left");
  first = DeviceBuffer();
  EXPECT_EQ(memory_->available(3), 256 * kMiB);
  EXPECT_TRUE(memory_->allocate("more", 3, 256 * kMiB, HostAccess::none).has_value());
}

TEST_P(Arena, SaysWhatOthersHold) {
  // Another user of the card, behind this one's back.
  const xrt::bo other(device_->xrt(), 100 * kMiB, xrt::bo::flags::device_only, 3);
  const auto buffer = memory_->allocate("w3", 3, 200 * kMiB, HostAccess::none);
  ASSERT_FALSE(buffer.has_value());
  EXPECT_EQ(buffer.error().message,
            "w3 needs 200.0 MiB of HBM[3] (256.0 MiB), of which 156.0 MiB are left; other "
            "processes hold 100.0 MiB");
}

TEST_P(Arena, AKernelThatIsWiredElsewhereIsRefused) {
  KernelMap wrong = map_.kernels[0];
  wrong.arguments[5].bank = 9;
  const auto kernel = device_->kernel(wrong);
  ASSERT_FALSE(kernel.has_value());
  EXPECT_EQ(kernel.error().kind, Kind::bad_bitstream);
  EXPECT_NE(kernel.error().message.find("argument 'w1' of prefill:{prefill_1} is wired to memory "
                                        "group 1 instead of 9"),
            std::string::npos)
      << kernel.error().message;
}

TEST_P(Arena, ABitstreamThatLacksWhatTheMapSaysIsRefused) {
  MemoryMap wrong = map_;
  wrong.kernels[1].compute_unit = "decode_2";
  EXPECT_NE(device_->load(FLEXLLM_TEST_BITSTREAM, wrong).error().message.find("decode:decode_2"),
            std::string::npos);
  wrong = map_;
  wrong.kernels[0].arguments[2].bank = 3;
  EXPECT_NE(device_->load(FLEXLLM_TEST_BITSTREAM, wrong).error().message.find("is not in HBM[3]"),
            std::string::npos);
}

}  // namespace
}  // namespace flexllm::host
