#include "server/telemetry/metrics.h"

#include <fmt/format.h>

#include <algorithm>
#include <iterator>

#include "server/telemetry/prometheus.h"

namespace flexllm::server {
namespace {

std::vector<double> seconds() {
  return {0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100, 300};
}
std::vector<double> lengths() {
  return {1, 4, 16, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384, 32768, 65536, 131072};
}

}  // namespace

Histogram::Histogram(std::vector<double> bounds)
    : bounds_(std::move(bounds)), counts_(bounds_.size() + 1) {}

void Histogram::observe(double value) {
  const auto bucket = static_cast<size_t>(std::lower_bound(bounds_.begin(), bounds_.end(), value) -
                                          bounds_.begin());
  const std::lock_guard lock(mutex_);
  ++counts_[bucket];
  sum_ += value;
  ++count_;
}

void Histogram::write(std::string& out, std::string_view name, std::string_view help) const {
  const std::lock_guard lock(mutex_);
  auto end = std::back_inserter(out);
  prometheus::head(out, name, "histogram", help);
  uint64_t cumulative = 0;
  for (size_t i = 0; i < bounds_.size(); ++i) {
    cumulative += counts_[i];
    fmt::format_to(end, "flexllm_{}_bucket{{le=\"{}\"}} {}\n", name, bounds_[i], cumulative);
  }
  fmt::format_to(end, "flexllm_{}_bucket{{le=\"+Inf\"}} {}\n", name, count_);
  fmt::format_to(end, "flexllm_{0}_sum {1}\nflexllm_{0}_count {2}\n", name, sum_, count_);
}

Metrics::Metrics()
    : queue_s(seconds()),
      first_token_s(seconds()),
      inter_token_s(seconds()),
      end_to_end_s(seconds()),
      prompt_length(lengths()),
      output_length(lengths()),
      batch_size({1, 2, 4, 8, 16, 32, 64}) {}

std::string Metrics::prometheus() const {
  using prometheus::metric;
  std::string out;
  const auto number = [](const Counter& value) { return static_cast<double>(value.load()); };
  const auto gauge = [&](std::string_view name, std::string_view help, const Counter& value) {
    metric(out, name, "gauge", help, {{"", number(value)}});
  };
  const auto counter = [&](std::string_view name, std::string_view help, const Counter& value) {
    metric(out, name, "counter", help, {{"", number(value)}});
  };
  gauge("requests_running", "Requests with a choice on the card.", requests_running);
  gauge("requests_waiting", "Requests in the queue.", requests_waiting);
  gauge("sequences_running", "Choices on the card.", sequences_running);
  gauge("kv_pages_used", "KV cache pages of choices on the card.", kv_pages_used);
  gauge("kv_pages_cached", "KV cache pages kept for later requests.", kv_pages_cached);
  gauge("kv_pages_total", "KV cache pages of the card.", kv_pages_total);
  metric(out, "finished_total", "counter", "Choices that ended, by reason.",
         {{R"(reason="stop")", number(finished_stop)},
          {R"(reason="length")", number(finished_length)},
          {R"(reason="cancelled")", number(finished_cancelled)},
          {R"(reason="error")", number(finished_error)}});
  counter("rejected_queue_full_total", "Requests refused with 429.", rejected_queue_full);
  counter("prompt_tokens_total", "Tokens of prompts taken.", prompt_tokens);
  counter("generated_tokens_total", "Tokens sampled.", generated_tokens);
  gauge("host_cache_bytes", "KV cache pages in host memory.", host_cache_bytes);
  counter("prefix_cache_queries_total", "Prompt tokens that were looked up in the prefix cache.",
          prefix_query_tokens);
  counter("prefix_cache_hits_total", "Prompt tokens that the prefix cache had.", prefix_hit_tokens);
  counter("kv_pages_to_host_total", "KV cache pages moved to host memory.", pages_to_host);
  counter("kv_pages_from_host_total", "KV cache pages brought back.", pages_from_host);
  counter("preemptions_total", "Choices that gave up their pages to older ones.", preemptions);
  counter("device_errors_total", "Launches and copies that the card failed.", device_errors);
  counter("device_recoveries_total", "Recoveries that brought the card back.", device_recoveries);
  metric(out, "launches_total", "counter", "Kernel launches, by stage.",
         {{R"(stage="prefill")", number(prefill_launches)},
          {R"(stage="decode")", number(decode_launches)}});
  metric(out, "kernel_busy_seconds_total", "counter", "Time in kernels, by stage.",
         {{R"(stage="prefill")", number(prefill_kernel_ns) * 1e-9},
          {R"(stage="decode")", number(decode_kernel_ns) * 1e-9}});
  queue_s.write(out, "queue_seconds", "From arrival to a place on the card.");
  first_token_s.write(out, "time_to_first_token_seconds", "From arrival to the first token.");
  inter_token_s.write(out, "inter_token_seconds", "Between tokens of a choice.");
  end_to_end_s.write(out, "request_seconds", "From arrival to the end of all choices.");
  prompt_length.write(out, "prompt_length_tokens", "Tokens of a prompt.");
  output_length.write(out, "output_length_tokens", "Tokens of an answer.");
  batch_size.write(out, "decode_batch_size", "Choices of a decode launch.");
  return out;
}

}  // namespace flexllm::server
