// What an operator says about scheduling.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>

#include "server/telemetry/trace.h"

namespace flexllm::server {

struct SchedulerOptions {
  // Requests that wait for their first place on the card; further ones are refused.
  uint32_t max_queue = 256;
  uint64_t max_queued_tokens = 1u << 20;  // of their prompts; one request may always wait
  uint32_t max_sequences = 0;    // choices on the card at once; 0: as many as a decode launch has
  uint32_t prefill_chunk = 128;  // rows of a prefill launch, cut to what the card takes
  // How long a prefill launch may take where next tokens wait for it, because the card has no
  // decode kernel; it gets fewer rows. 0: as long as prefill_chunk takes.
  std::chrono::milliseconds prefill_target{100};
  uint32_t context_length = 0;             // cut below the model's and the card's; 0: not
  bool no_prefix_cache = false;            // compute every prompt from its first token
  uint64_t host_cache_bytes = 512u << 20;  // host memory for pages that the card has no room for
  // A request that has waited so long goes before all that have not, whatever their priority.
  std::chrono::milliseconds patience{60000};
  size_t result_bytes = 1u << 20;  // unread results after which a reader is too slow
  uint32_t max_faults = 2;         // failed launches in one place that a choice may have
  std::chrono::milliseconds recovery_pause{5000};  // between attempts to bring a lost card back
  std::shared_ptr<Trace> trace;                    // what happens is written to; null: not
};

}  // namespace flexllm::server
