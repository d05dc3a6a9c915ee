// What the outcomes of a load come to. Pure functions of values; seconds and tokens.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <tl/expected.hpp>
#include <vector>

#include "cli/bench/generator.h"
#include "cli/bench/outcome.h"

namespace flexllm::cli::bench {

struct Summary {
  size_t count = 0;  // of values; with none the rest is 0
  double mean = 0, p50 = 0, p90 = 0, p99 = 0, max = 0;
};
// Percentile q of n sorted values: that of rank q (n - 1), linear between ranks, as NumPy's
// default.
Summary summary(std::vector<double> values);

// The latencies of a request that is done, from when it was due.
double time_to_first_token(const Outcome& outcome);
double end_to_end(const Outcome& outcome);
// Mean time between tokens: from the first chunk to the last over the tokens but the first. Absent
// below two tokens.
std::optional<double> inter_token(const Outcome& outcome);
// From each chunk to the next: what a reader sees. Chunks that came at once are 0 apart.
std::vector<double> chunk_gaps(const Outcome& outcome);

// Limits in seconds; what is absent is not looked at.
struct Slo {
  std::optional<double> ttft;
  std::optional<double> itl;  // mean of the request
  std::optional<double> gap;  // the longest one of the request
  std::optional<double> e2e;

  // From {"ttft=0.5s", "itl=50ms"}. The error says what is wrong.
  static tl::expected<Slo, std::string> parse(const std::vector<std::string>& limits);
  bool empty() const { return !ttft && !itl && !gap && !e2e; }
  bool met_by(const Outcome& outcome) const;
  std::string text() const;  // "ttft <= 500 ms, itl <= 50 ms"
};

struct Failures {
  uint64_t count = 0;
  std::string example;
};

struct Results {
  uint64_t done = 0, failed = 0, unfinished = 0;
  std::map<std::string, Failures> failures;  // by kind
  double seconds = 0;
  uint64_t prompt_tokens = 0, output_tokens = 0, asked_tokens = 0;  // of those that are done
  uint64_t with_usage = 0;  // of those, where the server told the number of tokens
  uint64_t chunks = 0;
  std::vector<double> ttft, itl, gap, e2e;  // every value
  uint64_t good = 0;                        // done within the SLO
  double latest = 0;                        // longest time from due to sent

  double per_second(uint64_t what) const {
    return seconds > 0 ? static_cast<double>(what) / seconds : 0;
  }
};
Results results_of(const Measurement& measurement, const Slo& slo);

// Output tokens a second and requests that run, in `bins` equal parts of the measurement. The
// tokens of an answer count as if its chunks held equally many.
struct Timeline {
  double seconds = 0;  // of a part
  std::vector<double> tokens_per_second;
  std::vector<double> running;  // mean
};
Timeline timeline_of(const Measurement& measurement, size_t bins);

// How many values lie in each of `bins` equal parts of [0, end]; what lies above counts in the
// last.
std::vector<uint64_t> histogram(const std::vector<double>& values, double end, size_t bins);

std::string duration_text(double seconds);  // "12.3 ms", "1.2 s"

}  // namespace flexllm::cli::bench
