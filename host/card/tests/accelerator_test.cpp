// Every shipped accelerator, from its JSON to a launch: the memory map inside its bitstream, XRT's
// group ids and the addresses that the kernel sees agree.
#include <experimental/xrt_xclbin.h>
#include <xclbin.h>

#include <vector>

#include "host/card/tests/demo_card.h"

namespace flexllm::card::test {
namespace {

using nlohmann::json;

json memory_map(const xrt::xclbin& image) {
  const axlf* top = image.get_axlf();
  const axlf_section_header* section = ::xclbin::get_axlf_section(top, USER_METADATA);
  const char* text = reinterpret_cast<const char*>(top) + section->m_sectionOffset;
  return json::parse(text, text + section->m_sectionSize);
}

class Accelerator : public ::testing::TestWithParam<const char*> {};

TEST_P(Accelerator, RunsWithItsMemoryMap) {
  const std::string path = bitstream(GetParam());
  const json map = memory_map(xrt::xclbin(path));
  EXPECT_EQ(map.at("accelerator"), GetParam());
  xrt::device device(0u);
  const xrt::uuid uuid = device.load_xclbin(path);
  for (const json& described : map.at("kernels")) {
    const std::string name = described.at("name");
    SCOPED_TRACE(name);
    xrt::kernel kernel(device, uuid,
                       name + ":{" + described.at("compute_unit").get<std::string>() + "}");
    const json& arguments = described.at("arguments");
    std::vector<xrt::bo> buffers;
    xrt::run run(kernel);
    for (const json& argument : arguments) {
      const int index = argument.at("index");
      const int bank = argument.at("bank");
      ASSERT_EQ(kernel.group_id(index), bank) << argument;
      buffers.emplace_back(device, 4096, bank);
      run.set_arg(argument.at("name").get<std::string>(), buffers.back());
    }
    run.start();
    ASSERT_EQ(run.wait(), ERT_CMD_STATE_COMPLETED);
    xrt::bo& result = buffers.at(2);
    result.sync(XCL_BO_SYNC_BO_FROM_DEVICE);
    const auto* seen = result.map<const std::uint64_t*>();
    ASSERT_EQ(seen[0], arguments.size());
    for (std::size_t i = 0; i < arguments.size(); ++i) {
      const json& bank = map.at("banks").at(arguments[i].at("bank").get<std::size_t>());
      EXPECT_EQ(bank.at("tag"), arguments[i].at("tag"));
      EXPECT_EQ(seen[i + 1], buffers[i].address());
      EXPECT_GE(seen[i + 1], bank.at("base").get<std::uint64_t>());
      EXPECT_LT(seen[i + 1],
                bank.at("base").get<std::uint64_t>() + bank.at("bytes").get<std::uint64_t>());
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Shipped, Accelerator, ::testing::Values(CARD_TEST_ACCELERATORS),
                         [](const auto& instance) {
                           std::string name = instance.param;
                           for (char& c : name) c = c == '-' ? '_' : c;
                           return name;
                         });

}  // namespace
}  // namespace flexllm::card::test
