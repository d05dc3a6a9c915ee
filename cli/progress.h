// Says how far something has come: a line that counts on a terminal, one line elsewhere. On stderr;
// used by one thread.
#pragma once

#include <string>

namespace flexllm::cli {

class Progress {
 public:
  explicit Progress(std::string what);
  void show(double share);  // 0..1

 private:
  const std::string what_;
  const bool terminal_;
  int last_ = -1;
};

}  // namespace flexllm::cli
