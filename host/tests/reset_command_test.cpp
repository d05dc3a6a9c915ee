// The reset command cannot hold the server up, and gets nothing of it that is not its business.
#include "host/reset_command.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

#include <string>

namespace flexllm::host {
namespace {

using std::chrono::milliseconds;
using std::chrono::steady_clock;

constexpr milliseconds kEnough{20000};

std::string message_of(const std::string& command, milliseconds limit = kEnough) {
  const auto result = run_reset_command(command, limit);
  if (result) return "";
  EXPECT_EQ(result.error().kind, DeviceError::Kind::reset_failed);
  return result.error().message;
}

TEST(ResetCommand, SaysHowItEnded) {
  EXPECT_EQ(message_of("true"), "");
  EXPECT_EQ(message_of("exit 3"), "the reset command 'exit 3' returned 3");
  EXPECT_EQ(message_of("kill -TERM $$"),
            "the reset command 'kill -TERM $$' was ended by signal 15");
}

TEST(ResetCommand, IsKilledWithItsChildrenWhenItsTimeIsOver) {
  const std::string mark = ::testing::TempDir() + "flexllm-reset-" + std::to_string(::getpid());
  // The child would leave the mark after the shell is gone.
  const std::string command = "(sleep 1; touch '" + mark + "') & sleep 30";
  const auto begin = steady_clock::now();
  const std::string message = message_of(command, milliseconds(200));
  EXPECT_LT(steady_clock::now() - begin, milliseconds(5000));
  EXPECT_NE(message.find("did not end within 200 ms and was killed"), std::string::npos) << message;
  ::usleep(1500000);
  EXPECT_NE(::access(mark.c_str(), F_OK), 0) << "a child outlived its group";
  ::unlink(mark.c_str());
}

TEST(ResetCommand, HasNothingToReadAndNoFilesOfOurs) {
  EXPECT_EQ(message_of("! read line"), "");
  const int fd = ::open("/dev/null", O_RDONLY);  // inherited by a command started carelessly
  const int high = ::fcntl(fd, F_DUPFD, 200);
  EXPECT_EQ(message_of("! test -e /proc/$$/fd/" + std::to_string(high)), "");
  ::close(fd);
  ::close(high);
}

TEST(ResetCommand, HasTheDefaultSignals) {
  sigset_t blocked;
  sigset_t before;
  sigfillset(&blocked);
  ASSERT_EQ(::pthread_sigmask(SIG_SETMASK, &blocked, &before), 0);
  const auto ignored = ::signal(SIGTERM, SIG_IGN);
  EXPECT_NE(message_of("kill -TERM $$; exit 0").find("signal 15"), std::string::npos);
  ::signal(SIGTERM, ignored);
  ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

TEST(ResetCommand, DoesNotGetTheKeys) {
  ::setenv("FLEXLLM_API_KEY", "secret", 1);
  ::setenv("FLEXLLM_TEST_VARIABLE", "seen", 1);
  EXPECT_EQ(message_of("test -z \"$FLEXLLM_API_KEY\" && test \"$FLEXLLM_TEST_VARIABLE\" = seen"),
            "");
  ::unsetenv("FLEXLLM_API_KEY");
  ::unsetenv("FLEXLLM_TEST_VARIABLE");
}

}  // namespace
}  // namespace flexllm::host
