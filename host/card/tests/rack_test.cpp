// Three cards in one process: each has its own address, memory, bitstream and faults.
#include <experimental/xrt_system.h>

#include <memory>
#include <vector>

#include "host/card/tests/demo_card.h"

namespace flexllm::card::test {
namespace {

using Info = xrt::info::device;

const bool named = (name_control_socket(), true);

std::vector<std::unique_ptr<DemoCard>> all_cards() {
  std::vector<std::unique_ptr<DemoCard>> cards;
  for (unsigned i = 0; i < 3; ++i) {
    cards.push_back(std::make_unique<DemoCard>(i, i == 1 ? "other" : "demo"));
  }
  return cards;
}

TEST(Rack, HasThreeCards) {
  ASSERT_EQ(xrt::system::enumerate_devices(), 3u);
  EXPECT_EQ(xrt::device(0u).get_info<Info::bdf>(), "0000:d8:00.1");
  EXPECT_EQ(xrt::device(2u).get_info<Info::bdf>(), "0000:d6:00.1");
}

TEST(Rack, CardsHaveTheirOwnMemoryAndBitstream) {
  const auto cards = all_cards();
  EXPECT_EQ(cards[0]->uuid.to_string(), cards[2]->uuid.to_string());
  EXPECT_NE(cards[0]->uuid.to_string(), cards[1]->uuid.to_string());
  std::vector<xrt::bo> buffers;
  for (int i = 0; i < 3; ++i) {
    buffers.emplace_back(cards[static_cast<std::size_t>(i)]->device, 4096, 0);
    EXPECT_EQ(buffers.back().address(), 0u);
    buffers.back().map<int*>()[0] = i + 1;
    buffers.back().sync(XCL_BO_SYNC_BO_TO_DEVICE);
  }
  for (int i = 0; i < 3; ++i) {
    buffers[static_cast<std::size_t>(i)].sync(XCL_BO_SYNC_BO_FROM_DEVICE);
    EXPECT_EQ(buffers[static_cast<std::size_t>(i)].map<int*>()[0], i + 1);
  }
}

TEST(Rack, PagesMoveFromCardToCardThroughTheHost) {
  const auto cards = all_cards();
  xrt::bo from(cards[0]->device, 4096, 16);
  xrt::bo to(cards[1]->device, 4096, 17);
  from.map<int*>()[9] = 99;
  from.sync(XCL_BO_SYNC_BO_TO_DEVICE);
  from.sync(XCL_BO_SYNC_BO_FROM_DEVICE);
  to.write(from.map());
  to.sync(XCL_BO_SYNC_BO_TO_DEVICE);
  to.map<int*>()[9] = 0;
  to.sync(XCL_BO_SYNC_BO_FROM_DEVICE);
  EXPECT_EQ(to.map<int*>()[9], 99);
}

TEST(Rack, LosingOneCardLeavesTheOthers) {
  {
    const auto cards = all_cards();
    ASSERT_TRUE(control_ok(R"({"op": "disappear", "card": "0000:d7:00.1"})"));
    EXPECT_ANY_THROW(xrt::bo(cards[1]->device, 4096, 0));
    EXPECT_NO_THROW(xrt::bo(cards[0]->device, 4096, 0));
    EXPECT_NO_THROW(xrt::bo(cards[2]->device, 4096, 0));
  }
  ASSERT_TRUE(control_ok(R"({"op": "reset", "card": 1})"));
  EXPECT_NO_THROW(all_cards());
}

}  // namespace
}  // namespace flexllm::card::test
