// What is left of a card's process when it ends, well or by SIGKILL: nothing.
#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>

#include <algorithm>
#include <filesystem>
#include <set>
#include <string>
#include <vector>

#include "host/card/tests/demo_card.h"

namespace flexllm::card::test {
namespace {

namespace fs = std::filesystem;

// Starts the victim with this process's environment and waits until it is ready.
pid_t start_victim() {
  int out[2];
  if (::pipe(out) != 0) return -1;
  const pid_t child = ::fork();
  if (child == 0) {
    ::dup2(out[1], STDOUT_FILENO);
    ::close(out[0]);
    ::close(out[1]);
    ::execl(CARD_TEST_VICTIM, CARD_TEST_VICTIM, nullptr);
    ::_exit(127);
  }
  ::close(out[1]);
  std::string said;
  char byte = 0;
  while (said.find("ready") == std::string::npos && ::read(out[0], &byte, 1) == 1) said += byte;
  ::close(out[0]);
  return said.find("ready") == std::string::npos ? -1 : child;
}

void kill_and_wait(pid_t child) {
  ::kill(child, SIGKILL);
  ::waitpid(child, nullptr, 0);
}

// Our own names in the places where temporary things live.
std::set<std::string> traces() {
  std::set<std::string> found;
  for (const fs::path& folder : {fs::temp_directory_path(), fs::path("/dev/shm")}) {
    std::error_code error;
    for (const auto& entry : fs::directory_iterator(folder, error)) {
      const std::string name = entry.path().filename();
      if (name.starts_with("flexllm-card")) found.insert(entry.path());
    }
  }
  return found;
}

TEST(Lifecycle, KilledProcessLeavesNothingBehind) {
  name_control_socket();
  const auto before = traces();
  const pid_t victim = start_victim();
  ASSERT_GT(victim, 0);
  EXPECT_TRUE(control_ok(R"({"op": "stats"})"));  // the card is the victim's
  kill_and_wait(victim);
  EXPECT_EQ(traces(), before);
  // The name of its control socket is free again.
  const pid_t next = start_victim();
  ASSERT_GT(next, 0);
  EXPECT_TRUE(control_ok(R"({"op": "stats"})"));
  kill_and_wait(next);
}

// A socket with a file outlives a kill; the next process takes its place.
TEST(Lifecycle, StaleSocketFileIsReplaced) {
  const fs::path path = fs::path(::testing::TempDir()) / ("card-" + std::to_string(::getpid()));
  ::setenv("FLEXLLM_CARD_CONTROL", path.c_str(), 1);
  for (int round = 0; round < 2; ++round) {
    const pid_t victim = start_victim();
    ASSERT_GT(victim, 0);
    EXPECT_TRUE(control_ok(R"({"op": "stats"})"));
    kill_and_wait(victim);
    EXPECT_TRUE(fs::exists(path));
  }
  fs::remove(path);
}

TEST(Lifecycle, ProcessesHaveCardsOfTheirOwn) {
  name_control_socket();
  const pid_t victim = start_victim();
  ASSERT_GT(victim, 0);
  ::unsetenv("FLEXLLM_CARD_CONTROL");
  DemoCard card(0, "other");  // not busy: the victim's bitstream is on the victim's card
  EXPECT_EQ(card.device.get_xclbin_uuid().to_string(), card.uuid.to_string());
  kill_and_wait(victim);
}

TEST(Lifecycle, DescriptorsAreGivenBack) {
  const auto open_descriptors = [] {
    return std::distance(fs::directory_iterator("/proc/self/fd"), fs::directory_iterator());
  };
  { DemoCard warm; }
  const auto before = open_descriptors();
  for (int round = 0; round < 5; ++round) {
    DemoCard card;
    xrt::kernel spin = card.kernel("spin");
    xrt::bo out = card.buffer(spin, 1);
    spin(1u, out).wait();
  }
  EXPECT_EQ(open_descriptors(), before);
}

}  // namespace
}  // namespace flexllm::card::test
