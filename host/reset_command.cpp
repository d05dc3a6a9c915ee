#include "host/reset_command.h"

#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <optional>
#include <string_view>
#include <thread>
#include <vector>

namespace flexllm::host {
namespace {

using Clock = std::chrono::steady_clock;
using std::chrono::milliseconds;

constexpr milliseconds kLook{10};
// A process that the driver holds inside a call does not end when it is killed.
constexpr milliseconds kDeath{2000};
constexpr std::string_view kSecret = "FLEXLLM_API_KEY=";

// What posix_spawn is to do between fork and exec.
class SpawnSettings {
 public:
  SpawnSettings() {
    posix_spawn_file_actions_init(&files_);
    posix_spawn_file_actions_addopen(&files_, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
    posix_spawn_file_actions_addclosefrom_np(&files_, STDERR_FILENO + 1);
    posix_spawnattr_init(&attributes_);
    sigset_t signals;
    sigemptyset(&signals);
    posix_spawnattr_setsigmask(&attributes_, &signals);
    sigfillset(&signals);
    posix_spawnattr_setsigdefault(&attributes_, &signals);
    posix_spawnattr_setpgroup(&attributes_, 0);
    posix_spawnattr_setflags(
        &attributes_, POSIX_SPAWN_SETPGROUP | POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
  }
  ~SpawnSettings() {
    posix_spawnattr_destroy(&attributes_);
    posix_spawn_file_actions_destroy(&files_);
  }
  SpawnSettings(const SpawnSettings&) = delete;
  SpawnSettings& operator=(const SpawnSettings&) = delete;

  const posix_spawn_file_actions_t* files() const { return &files_; }
  const posix_spawnattr_t* attributes() const { return &attributes_; }

 private:
  posix_spawn_file_actions_t files_;
  posix_spawnattr_t attributes_;
};

std::vector<char*> environment_without_secrets() {
  std::vector<char*> variables;
  for (char** variable = environ; *variable != nullptr; ++variable) {
    if (!std::string_view(*variable).starts_with(kSecret)) variables.push_back(*variable);
  }
  variables.push_back(nullptr);
  return variables;
}

// The status with which the process ended, or nothing if it still runs at `deadline`. A process
// that somebody else has waited for counts as ended well.
std::optional<int> wait_until(pid_t process, Clock::time_point deadline) {
  while (true) {
    int status = 0;
    const pid_t ended = ::waitpid(process, &status, WNOHANG);
    if (ended == process) return status;
    if (ended < 0 && errno != EINTR) return 0;
    if (Clock::now() >= deadline) return std::nullopt;
    std::this_thread::sleep_for(kLook);
  }
}

}  // namespace

tl::expected<void, DeviceError> run_reset_command(const std::string& command, milliseconds limit) {
  const auto fail = [&](const std::string& why) {
    return tl::unexpected(
        DeviceError{DeviceError::Kind::reset_failed, "the reset command '" + command + "' " + why});
  };
  const SpawnSettings settings;
  std::string shell = "sh";
  std::string option = "-c";
  std::string text = command;
  const std::array<char*, 4> arguments = {shell.data(), option.data(), text.data(), nullptr};
  const std::vector<char*> environment = environment_without_secrets();
  pid_t process = 0;
  const int error = ::posix_spawn(&process, "/bin/sh", settings.files(), settings.attributes(),
                                  arguments.data(), environment.data());
  if (error != 0) return fail(std::string("could not be started: ") + std::strerror(error));

  const auto status = wait_until(process, Clock::now() + limit);
  if (!status) {
    ::kill(-process, SIGKILL);
    const bool dead = wait_until(process, Clock::now() + kDeath).has_value();
    return fail("did not end within " + std::to_string(limit.count()) + " ms and " +
                (dead ? "was killed" : "does not die: the driver holds it"));
  }
  if (*status == 0) return {};
  if (WIFEXITED(*status)) return fail("returned " + std::to_string(WEXITSTATUS(*status)));
  return fail("was ended by signal " + std::to_string(WTERMSIG(*status)));
}

}  // namespace flexllm::host
