// Each in a process of its own: signals are the whole process's.
#include "cli/signals.h"

#include <gtest/gtest.h>
#include <pthread.h>
#include <signal.h>
#include <unistd.h>

#include <thread>

#include "cli/exit_code.h"

namespace flexllm::cli {
namespace {

// As OpenBLAS has one: begun before the signals are taken, so it has them unblocked.
pthread_t early_thread() {
  std::thread thread([] {
    while (true) pause();
  });
  const pthread_t handle = thread.native_handle();
  thread.detach();
  return handle;
}

TEST(StopSignals, ASignalInAnEarlyThreadAsksToStop) {
  EXPECT_EXIT(
      {
        const pthread_t early = early_thread();
        StopSignals signals;
        signals.expect();
        pthread_kill(early, SIGTERM);
        signals.wait();
        _exit(kOk);
      },
      testing::ExitedWithCode(kOk), "");
}

TEST(StopSignals, TheSecondOneEndsTheProgram) {
  EXPECT_EXIT(
      {
        StopSignals signals;
        signals.expect();
        kill(getpid(), SIGTERM);
        signals.wait();
        kill(getpid(), SIGINT);
        while (true) pause();
      },
      testing::ExitedWithCode(kInterrupted), "");
}

TEST(StopSignals, OneThatIsNotExpectedEndsTheProgram) {
  EXPECT_EXIT(
      {
        StopSignals signals;
        kill(getpid(), SIGTERM);
        while (true) pause();
      },
      testing::ExitedWithCode(kInterrupted), "");
}

}  // namespace
}  // namespace flexllm::cli
