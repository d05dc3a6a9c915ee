// Runs the operator's command that resets a card. Called by the engine's thread; private to host/.
#pragma once

#include <chrono>
#include <string>
#include <tl/expected.hpp>

#include "host/device_error.h"

namespace flexllm::host {

// Runs `command` in a shell, in a process group of its own, with nothing of this process but its
// output and its environment: no open files, no blocked or ignored signals, nothing to read on
// stdin, and no API keys. After `limit` the group is killed. `reset_failed` unless it returned 0.
tl::expected<void, DeviceError> run_reset_command(const std::string& command,
                                                  std::chrono::milliseconds limit);

}  // namespace flexllm::host
