// Each connection takes a file descriptor, and the limit that a shell gives is low.
#pragma once

#include <sys/resource.h>

namespace flexllm::cli {

// As many as this process may have.
inline void raise_descriptor_limit() {
  rlimit limit = {};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
  limit.rlim_cur = limit.rlim_max;
  setrlimit(RLIMIT_NOFILE, &limit);
}

}  // namespace flexllm::cli
