// What became of one request. A plain value. Times are seconds since the measurement began, by a
// clock that only goes forward.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace flexllm::cli::bench {

struct Outcome {
  enum class End { done, failed, unfinished };  // unfinished: the run was interrupted
  End end = End::unfinished;
  // Of a failure, for counting: "connect", "timeout", "http 429 rate_limit_error", ...
  std::string kind;
  std::string message;  // of a failure, one example of which is shown

  double due = 0;    // when it was to be sent; latencies count from here
  double sent = 0;   // when the generator came to it
  double ended = 0;  // [DONE] or the failure
  // When each piece of the answer's text came; several may have come at once.
  std::vector<double> chunks;

  uint32_t asked_tokens = 0;   // most that the answer may have
  uint32_t prompt_tokens = 0;  // as `usage` tells; without it what was asked for
  uint32_t output_tokens = 0;  // as `usage` tells; without it the number of chunks
  bool usage = false;          // whether the server told
};

}  // namespace flexllm::cli::bench
