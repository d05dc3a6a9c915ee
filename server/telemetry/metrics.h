// Counters of the server in Prometheus' text format. Written by the scheduler's thread and by the
// HTTP threads, read by whoever scrapes: every member may be used from any thread.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

namespace flexllm::server {

class Histogram {
 public:
  // Upper bounds of the buckets, ascending; one more bucket holds the rest.
  explicit Histogram(std::vector<double> bounds);
  void observe(double value);
  void write(std::string& out, std::string_view name, std::string_view help) const;

 private:
  const std::vector<double> bounds_;
  mutable std::mutex mutex_;
  std::vector<uint64_t> counts_;
  double sum_ = 0;
  uint64_t count_ = 0;
};

struct Metrics {
  using Counter = std::atomic<uint64_t>;

  Counter requests_running{0};  // gauges
  Counter requests_waiting{0};
  Counter sequences_running{0};
  Counter kv_pages_used{0};    // by sequences
  Counter kv_pages_cached{0};  // held for later ones
  Counter kv_pages_total{0};
  Counter host_cache_bytes{0};

  Counter finished_stop{0};  // choices, by reason
  Counter finished_length{0};
  Counter finished_cancelled{0};  // requests
  Counter finished_error{0};
  Counter rejected_queue_full{0};
  Counter prompt_tokens{0};
  Counter generated_tokens{0};
  Counter prefix_query_tokens{0};  // of prompts that got a place
  Counter prefix_hit_tokens{0};    // of them: not computed again
  Counter pages_to_host{0};
  Counter pages_from_host{0};
  Counter preemptions{0};
  Counter device_errors{0};
  Counter device_recoveries{0};
  Counter prefill_launches{0};
  Counter decode_launches{0};
  Counter prefill_kernel_ns{0};
  Counter decode_kernel_ns{0};

  Histogram queue_s;        // submitted to first slot
  Histogram first_token_s;  // submitted to first token
  Histogram inter_token_s;
  Histogram end_to_end_s;
  Histogram prompt_length;
  Histogram output_length;
  Histogram batch_size;  // sequences of a decode launch

  Metrics();
  std::string prometheus() const;
};

}  // namespace flexllm::server
