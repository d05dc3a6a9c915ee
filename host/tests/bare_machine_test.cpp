// Without a driver and without the emulated card every answer is clean. (On a machine with a card
// this looks at that card, and touches nothing.)
#include <gtest/gtest.h>

#include "host/device.h"
#include "host/doctor.h"

namespace flexllm::host {
namespace {

TEST(BareMachine, TheDoctorSaysWhatIsMissing) {
  const auto findings = examine(EngineOptions{});
  ASSERT_FALSE(findings.empty());
  for (const Finding& finding : findings) {
    EXPECT_FALSE(finding.what.empty()) << finding.name;
    EXPECT_TRUE(finding.level != Finding::Level::failure || !finding.mend.empty()) << finding.what;
  }
  if (driver_cards().empty()) {
    EXPECT_FALSE(healthy(findings));
    EXPECT_EQ(findings.back().name, "driver");
  }
}

TEST(BareMachine, ACardThatDoesNotExist) {
  const auto device = Device::open("0000:ff:1f.7");
  ASSERT_FALSE(device.has_value());
  EXPECT_EQ(device.error().kind, DeviceError::Kind::not_found);
  EXPECT_NE(device.error().message.find("0000:ff:1f.7"), std::string::npos);
}

TEST(BareMachine, XrtIsFound) {
  EXPECT_TRUE(card_on_bus() || driver_cards().empty());
  const auto devices = list_devices();
  ASSERT_TRUE(devices.has_value()) << devices.error().message;
  EXPECT_EQ(devices->size() > 0, !driver_cards().empty());
}

}  // namespace
}  // namespace flexllm::host
