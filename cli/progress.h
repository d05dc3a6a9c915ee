// Says how far something has come and how long the rest may take: a line that counts on a terminal,
// elsewhere a line at the start and then one a minute. On stderr; used by one thread.
#pragma once

#include <chrono>
#include <string>

namespace flexllm::cli {

class Progress {
 public:
  explicit Progress(std::string what);
  void show(double share);  // 0..1

 private:
  using Clock = std::chrono::steady_clock;

  const std::string what_;
  const bool terminal_;
  const Clock::time_point start_;
  Clock::time_point last_line_;
  double first_share_ = -1;  // what an earlier run had done counts for no time
  std::string last_;
};

// "3 min", "40 s": of what is left when `passed` took the work from `first` to `share`; empty while
// that says little.
std::string time_left(std::chrono::duration<double> passed, double first, double share);

}  // namespace flexllm::cli
