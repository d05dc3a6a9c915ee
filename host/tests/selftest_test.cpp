#include "host/selftest.h"

#include <gtest/gtest.h>

namespace flexllm::host {
namespace {

SelftestReport report_on(const char* bitstream) {
  EngineOptions options;
  options.bitstream = bitstream;
  options.memory_map = FLEXLLM_TEST_MEMORY_MAP;
  const auto report = run_selftest(options);
  EXPECT_TRUE(report.has_value()) << report.error().message;
  return report.value_or(SelftestReport{});
}

TEST(Selftest, PassesOnACardThatKeepsTheContract) {
  const SelftestReport report = report_on(FLEXLLM_TEST_BITSTREAM);
  EXPECT_TRUE(report.passed) << report.difference;
  EXPECT_TRUE(report.compared_pages);
  EXPECT_EQ(report.launches, 6u);  // each stage: two layers, and the whole model
}

TEST(Selftest, NamesTheLayerAndModuleOfTheFirstDifference) {
  const SelftestReport residual = report_on(FLEXLLM_TEST_WRONG "/wrong_prefill.xclbin");
  EXPECT_FALSE(residual.passed);
  EXPECT_NE(residual.difference.find("prefill, layer 1, row 0, residual: element 0"),
            std::string::npos)
      << residual.difference;
  const SelftestReport scale = report_on(FLEXLLM_TEST_WRONG "/wrong_decode.xclbin");
  EXPECT_FALSE(scale.passed);
  EXPECT_NE(scale.difference.find("decode, layer 1, KV cache, layer 1: scales of position 70"),
            std::string::npos)
      << scale.difference;
}

TEST(Selftest, ACardThatCannotCopyPagesIsComparedWithoutThem) {
  EngineOptions options;
  options.bitstream = FLEXLLM_TEST_BITSTREAM;
  options.card_copies = false;
  const auto report = run_selftest(options);
  ASSERT_TRUE(report.has_value()) << report.error().message;
  EXPECT_TRUE(report->passed) << report->difference;
  EXPECT_FALSE(report->compared_pages);
}

}  // namespace
}  // namespace flexllm::host
