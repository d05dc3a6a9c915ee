// Each in a process of its own: signals are the whole process's.
#include "cli/signals.h"

#include <gtest/gtest.h>
#include <pthread.h>
#include <signal.h>
#include <unistd.h>

#include <atomic>
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

TEST(ServerSignals, ASignalInAnEarlyThreadAsksToStop) {
  EXPECT_EXIT(
      {
        const pthread_t early = early_thread();
        ServerSignals signals;
        signals.expect();
        pthread_kill(early, SIGTERM);
        signals.wait();
        _exit(kOk);
      },
      testing::ExitedWithCode(kOk), "");
}

TEST(ServerSignals, TheSecondOneEndsTheProgram) {
  EXPECT_EXIT(
      {
        ServerSignals signals;
        signals.expect();
        kill(getpid(), SIGTERM);
        signals.wait();
        kill(getpid(), SIGINT);
        while (true) pause();
      },
      testing::ExitedWithCode(kInterrupted), "");
}

TEST(ServerSignals, OneThatIsNotExpectedEndsTheProgram) {
  EXPECT_EXIT(
      {
        ServerSignals signals;
        kill(getpid(), SIGTERM);
        while (true) pause();
      },
      testing::ExitedWithCode(kInterrupted), "");
}

TEST(ServerSignals, ALogThatNobodyReadsEndsNothing) {
  EXPECT_EXIT(
      {
        ServerSignals signals;
        int ends[2];
        if (pipe(ends) != 0) _exit(1);
        close(ends[0]);
        const ssize_t written = write(ends[1], "x", 1);
        _exit(written < 0 ? kOk : 1);
      },
      testing::ExitedWithCode(kOk), "");
}

TEST(ServerSignals, AHangupReloadsAndStopsNothing) {
  EXPECT_EXIT(
      {
        ServerSignals signals;
        signals.expect();
        std::atomic<int> reloads{0};
        kill(getpid(), SIGHUP);  // nobody wants it yet
        usleep(300000);
        signals.on_hangup([&] { ++reloads; });
        while (reloads < 3) {
          kill(getpid(), SIGHUP);
          usleep(1000);
        }
        kill(getpid(), SIGTERM);
        signals.wait();
        _exit(kOk);
      },
      testing::ExitedWithCode(kOk), "");
}

}  // namespace
}  // namespace flexllm::cli
