// What the exit codes of `flexllm` mean. The table in cli/README.md is this one.
#pragma once

#include <stdexcept>
#include <string>

namespace flexllm::cli {

enum ExitCode : int {
  kOk = 0,
  kFailed = 1,        // something else, said on stderr
  kUsage = 2,         // the command line, the environment or the configuration file
  kModel = 3,         // the model cannot be opened or does not fit
  kDevice = 4,        // the card cannot be used
  kNetwork = 5,       // the address cannot be bound, or the server cannot be reached
  kRefused = 6,       // the server answered with an error
  kInterrupted = 130  // Ctrl-C
};

// Ends a subcommand: main() prints the message and returns the code.
class Failure : public std::runtime_error {
 public:
  Failure(ExitCode exit_code, const std::string& message)
      : std::runtime_error(message), code(exit_code) {}
  const ExitCode code;
};

}  // namespace flexllm::cli
