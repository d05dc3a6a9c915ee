#include "cli/progress.h"

#include <fmt/format.h>
#include <unistd.h>

#include <cmath>
#include <cstdio>
#include <utility>

namespace flexllm::cli {
namespace {

constexpr std::chrono::seconds kBetweenLines{60};

}  // namespace

std::string time_left(std::chrono::duration<double> passed, double first, double share) {
  const double done = share - first;
  if (done < 0.01 || passed.count() < 2 || share >= 1) return "";
  const double seconds = passed.count() / done * (1 - share);
  if (seconds >= 5400) return fmt::format("{:.0f} h", std::ceil(seconds / 3600));
  if (seconds >= 90) return fmt::format("{:.0f} min", std::ceil(seconds / 60));
  return fmt::format("{:.0f} s", std::ceil(seconds));
}

Progress::Progress(std::string what)
    : what_(std::move(what)),
      terminal_(isatty(STDERR_FILENO) != 0),
      start_(Clock::now()),
      last_line_(start_) {
  if (!terminal_) fmt::print(stderr, "{}\n", what_);
}

void Progress::show(double share) {
  if (first_share_ < 0) first_share_ = share;
  const auto now = Clock::now();
  if (!terminal_ && now - last_line_ < kBetweenLines) return;
  const std::string left = time_left(now - start_, first_share_, share);
  const std::string line = fmt::format("{}: {:.0f}%{}", what_, std::floor(share * 100),
                                       left.empty() ? "" : ", about " + left + " left");
  if (line == last_) return;
  // What was longer is wiped.
  const size_t wiped = last_.size() > line.size() ? last_.size() - line.size() : 0;
  if (terminal_) {
    fmt::print(stderr, "\r{}{:{}}", line, "", wiped);
    if (share >= 1) fmt::print(stderr, "\n");
  } else {
    fmt::print(stderr, "{}\n", line);
  }
  std::fflush(stderr);
  last_ = line;
  last_line_ = now;
}

}  // namespace flexllm::cli
