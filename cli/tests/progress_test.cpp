#include "cli/progress.h"

#include <gtest/gtest.h>

namespace flexllm::cli {
namespace {

using std::chrono::duration;

TEST(TimeLeft, IsWhatTheRestTakesAtThisPace) {
  EXPECT_EQ(time_left(duration<double>(10), 0, 0.5), "10 s");
  EXPECT_EQ(time_left(duration<double>(60), 0, 0.25), "3 min");
  EXPECT_EQ(time_left(duration<double>(3600), 0, 0.25), "3 h");
  // Half was there when the run began.
  EXPECT_EQ(time_left(duration<double>(10), 0.5, 0.75), "10 s");
}

TEST(TimeLeft, IsEmptyWhileItSaysLittle) {
  EXPECT_EQ(time_left(duration<double>(1), 0, 0.5), "");
  EXPECT_EQ(time_left(duration<double>(10), 0.2, 0.205), "");
  EXPECT_EQ(time_left(duration<double>(10), 0, 1), "");
}

}  // namespace
}  // namespace flexllm::cli
