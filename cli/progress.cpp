#include "cli/progress.h"

#include <fmt/format.h>
#include <unistd.h>

#include <cstdio>
#include <utility>

namespace flexllm::cli {

Progress::Progress(std::string what) : what_(std::move(what)), terminal_(isatty(STDERR_FILENO)) {
  if (!terminal_) fmt::print(stderr, "{}\n", what_);
}

void Progress::show(double share) {
  const int percent = static_cast<int>(share * 100);
  if (!terminal_ || percent == last_) return;
  last_ = percent;
  fmt::print(stderr, "\r{}: {}%", what_, percent);
  if (percent == 100) fmt::print(stderr, "\n");
  std::fflush(stderr);
}

}  // namespace flexllm::cli
