// The doctor on an emulated card, healthy and ill.
#include "host/doctor.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "host/tests/card_control.h"

namespace flexllm::host {
namespace {

EngineOptions combined() {
  EngineOptions options;
  options.bitstream = FLEXLLM_TEST_BITSTREAM;
  return options;
}

// The finding of that name, or an empty one.
Finding named(const std::vector<Finding>& findings, const std::string& name) {
  const auto found = std::find_if(findings.begin(), findings.end(),
                                  [&](const Finding& finding) { return finding.name == name; });
  return found == findings.end() ? Finding{} : *found;
}

class Doctor : public testing::Test {
 protected:
  void TearDown() override { EXPECT_TRUE(test::control(R"({"op": "clear"})")); }
};

TEST_F(Doctor, FindsAHealthyCard) {
  const auto findings = examine(combined());
  EXPECT_TRUE(healthy(findings));
  for (const char* name : {"xrt", "node", "card", "sensors", "bitstream", "memory"}) {
    EXPECT_EQ(named(findings, name).level, Finding::Level::good) << named(findings, name).what;
    EXPECT_FALSE(named(findings, name).what.empty()) << name;
  }
  EXPECT_NE(named(findings, "memory").what.find("staged"), std::string::npos);
  EXPECT_NE(named(findings, "sensors").what.find("43 C"), std::string::npos);
}

TEST_F(Doctor, NamesANodeThatMayNotBeOpened) {
  ASSERT_TRUE(test::control(R"({"op": "inject", "fault": {"fault": "access_denied"}})"));
  const auto findings = examine(combined());
  EXPECT_FALSE(healthy(findings));
  const Finding node = named(findings, "node");
  EXPECT_EQ(node.level, Finding::Level::failure);
  EXPECT_NE(node.what.find("/dev/dri/renderD"), std::string::npos) << node.what;
  EXPECT_NE(node.mend.find("render"), std::string::npos) << node.mend;
}

TEST_F(Doctor, NamesABitstreamThatIsNotOne) {
  EngineOptions options = combined();
  options.bitstream = FLEXLLM_TEST_MEMORY_MAP;  // JSON
  options.memory_map = FLEXLLM_TEST_MEMORY_MAP;
  const Finding garbage = named(examine(options), "bitstream");
  EXPECT_EQ(garbage.level, Finding::Level::failure);
  EXPECT_NE(garbage.what.find("is not a bitstream"), std::string::npos) << garbage.what;
  options.bitstream = "missing.xclbin";
  EXPECT_NE(named(examine(options), "bitstream").what.find("there is no bitstream"),
            std::string::npos);
  options.memory_map = "missing.json";
  EXPECT_NE(named(examine(options), "bitstream").what.find("cannot read the memory map"),
            std::string::npos);
}

TEST_F(Doctor, NamesAnotherShell) {
  EngineOptions options;
  options.bitstream = FLEXLLM_TEST_V80;
  const Finding finding = named(examine(options), "bitstream");
  EXPECT_EQ(finding.level, Finding::Level::failure);
  EXPECT_NE(finding.what.find("emulated_u280_gen3x16_xdma_base_1"), std::string::npos)
      << finding.what;
}

TEST_F(Doctor, NamesABitstreamOfAnotherAccelerator) {
  EngineOptions options = combined();
  options.memory_map = FLEXLLM_TEST_V80_MAP;
  const Finding finding = named(examine(options), "bitstream");
  EXPECT_EQ(finding.level, Finding::Level::failure);
  EXPECT_NE(finding.what.find("does not match the memory map of 'v80'"), std::string::npos)
      << finding.what;
}

TEST_F(Doctor, NamesAFullBank) {
  ASSERT_TRUE(
      test::control(R"({"op": "inject", "fault": {"fault": "bank_full", "bank": "HBM[24]"}})"));
  const Finding finding = named(examine(combined()), "memory");
  EXPECT_EQ(finding.level, Finding::Level::failure);
  EXPECT_NE(finding.what.find("HBM[24]"), std::string::npos) << finding.what;
}

TEST_F(Doctor, NamesACardThatLeftTheBus) {
  ASSERT_TRUE(test::control(R"({"op": "disappear", "card": "0"})"));
  EXPECT_FALSE(healthy(examine(combined())));
  ASSERT_TRUE(test::control(R"({"op": "reset", "card": "0"})"));
  EXPECT_TRUE(healthy(examine(combined())));
}

TEST_F(Doctor, ASelftestThatCannotRunIsAFinding) {
  EngineOptions options = combined();
  options.device = std::string("7");
  EXPECT_EQ(examine_results(options).level, Finding::Level::failure);
  EXPECT_FALSE(examine_results(options).what.empty());
}

}  // namespace
}  // namespace flexllm::host

int main(int argc, char** argv) {
  flexllm::host::test::name_control_socket();
  testing::InitGoogleTest(&argc, argv);
  return RUN_ALL_TESTS();
}
