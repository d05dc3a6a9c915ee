// Finding a card, loading it, asking it: through the real XRT API.
#include <experimental/xrt_system.h>
#include <experimental/xrt_xclbin.h>
#include <xclbin.h>

#include <fstream>

#include "host/card/tests/demo_card.h"

namespace flexllm::card::test {
namespace {

using Info = xrt::info::device;
using ::testing::HasSubstr;
using ::testing::ThrowsMessage;

TEST(Device, IsFoundByIndexAndByAddress) {
  EXPECT_EQ(xrt::system::enumerate_devices(), 1u);
  EXPECT_EQ(xrt::device("0000:d8:00.1").get_info<Info::bdf>(), "0000:d8:00.1");
}

TEST(Device, OthersAreNotFound) {
  EXPECT_THAT([] { xrt::device device(7u); },
              ThrowsMessage<std::exception>(HasSubstr("Could not open device")));
  EXPECT_THAT([] { xrt::device device("0000:ff:00.1"); },
              ThrowsMessage<std::exception>(HasSubstr("No such device")));
}

TEST(Device, TakesOnlyItsOwnBitstreams) {
  xrt::device device(0u);
  EXPECT_ANY_THROW(device.load_xclbin("there is no such file"));
  const std::string garbage = ::testing::TempDir() + "/card_garbage.xclbin";
  std::ofstream(garbage) << std::string(4096, 'x');
  EXPECT_THAT([&] { device.load_xclbin(garbage); },
              ThrowsMessage<std::exception>(HasSubstr("Invalid xclbin")));
  EXPECT_THAT([&] { device.load_xclbin(bitstream("foreign")); },
              ThrowsMessage<std::exception>(HasSubstr("Operation not supported")));
}

TEST(Device, RefusesAnotherBitstreamWhileOneIsUsed) {
  DemoCard card;
  const xrt::kernel kernel = card.kernel("spin");
  EXPECT_THAT([&] { card.device.load_xclbin(bitstream("other")); },
              ThrowsMessage<std::exception>(HasSubstr("busy")));
}

TEST(Device, ChangesBitstreamWhenNothingIsUsed) {
  const xrt::uuid demo = DemoCard().uuid;
  const DemoCard other(0, "other");
  EXPECT_NE(other.uuid.to_string(), demo.to_string());
  EXPECT_EQ(other.device.get_xclbin_uuid().to_string(), other.uuid.to_string());
}

TEST(Device, LoadsTheSameBitstreamAgain) {
  DemoCard card;
  const xrt::kernel kernel = card.kernel("spin");
  EXPECT_EQ(card.device.load_xclbin(bitstream("demo")).to_string(), card.uuid.to_string());
}

TEST(Device, KnowsItsKernels) {
  DemoCard card;
  EXPECT_THAT([&] { card.kernel("nope"); },
              ThrowsMessage<std::exception>(HasSubstr("No such kernel")));
  EXPECT_THAT([&] { card.kernel("vadd:{vadd_9}"); },
              ThrowsMessage<std::exception>(HasSubstr("No compute units matching")));
  const xrt::uuid wrong("11111111-2222-3333-4444-555555555555");
  EXPECT_THAT([&] { xrt::kernel(card.device, wrong, "vadd"); },
              ThrowsMessage<std::exception>(HasSubstr("xclbin id mismatch")));
}

TEST(Device, BitstreamDescribesItself) {
  const xrt::xclbin image(bitstream("demo"));
  EXPECT_EQ(image.get_xsa_name(), "emulated_u280_gen3x16_xdma_base_1");
  EXPECT_EQ(image.get_mems().size(), 34u);
  const auto kernels = image.get_kernels();
  ASSERT_FALSE(kernels.empty());
  EXPECT_EQ(kernels[0].get_name(), "vadd");
  EXPECT_EQ(kernels[0].get_num_args(), 4u);
  EXPECT_EQ(kernels[0].get_cus().size(), 2u);
}

TEST(Device, UserMetadataIsReadBackThroughXrt) {
  const xrt::xclbin image(bitstream("demo"));
  const axlf* top = image.get_axlf();
  const axlf_section_header* section = ::xclbin::get_axlf_section(top, USER_METADATA);
  ASSERT_NE(section, nullptr);
  const std::string text(reinterpret_cast<const char*>(top) + section->m_sectionOffset,
                         section->m_sectionSize);
  EXPECT_EQ(nlohmann::json::parse(text), nlohmann::json({{"design", "demo"}}));
}

TEST(Device, AnswersQueries) {
  DemoCard card;
  const xrt::device& device = card.device;
  EXPECT_EQ(device.get_info<Info::name>(), "emulated_u280_gen3x16_xdma_base_1");
  EXPECT_EQ(device.get_info<Info::max_clock_frequency_mhz>(), 500u);
  EXPECT_EQ(device.get_info<Info::interface_uuid>().to_string(),
            "283bab8f-654d-8674-968f-4da57f7fa5d7");
  EXPECT_EQ(device.get_info<Info::kdma>(), 1u);
  EXPECT_FALSE(device.get_info<Info::m2m>());
  EXPECT_FALSE(device.get_info<Info::nodma>());
  EXPECT_FALSE(device.get_info<Info::offline>());
  EXPECT_THAT(device.get_info<Info::thermal>(), HasSubstr("\"temp_C\": \"41\""));
  EXPECT_THAT(device.get_info<Info::electrical>(), HasSubstr("12 Volts PCI Express"));
  EXPECT_THAT(device.get_info<Info::mechanical>(), HasSubstr("\"speed_rpm\": \"1100\""));
  EXPECT_THAT(device.get_info<Info::memory>(), HasSubstr("HBM[31]"));
  EXPECT_THAT(device.get_info<Info::platform>(), HasSubstr("emulated_u280"));
  EXPECT_THAT(device.get_info<Info::pcie_info>(), HasSubstr("0x500d"));
  EXPECT_THAT(device.get_info<Info::host>(), HasSubstr("version"));
  EXPECT_THAT(device.get_info<Info::dynamic_regions>(), HasSubstr("vadd:vadd_2"));
}

}  // namespace
}  // namespace flexllm::card::test
