// Sends a load to a server and notes what comes back. Everything happens in the calling thread, on
// one Boost.Asio loop that holds any number of connections; the first SIGINT or SIGTERM ends the
// run with what has finished.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "cli/bench/outcome.h"
#include "cli/bench/workload.h"
#include "cli/server_url.h"

namespace flexllm::cli::bench {

struct LoadOptions {
  ServerUrl url;
  std::string api_key;
  // Closed loop: so many requests run, and one that ends makes place for the next.
  uint32_t concurrency = 8;
  // Open loop: requests arrive as a Poisson process of so many a second, whatever runs.
  std::optional<double> rate;
  uint64_t requests = 100;                    // that are measured
  std::chrono::milliseconds duration{0};      // after which none is begun; 0: no limit
  uint32_t warm_up = 1;                       // requests before those
  std::chrono::milliseconds timeout{600000};  // of a request, from when it is sent
};

struct Measurement {
  std::vector<Outcome> outcomes;  // of the measured requests, in the order in which they ended
  std::vector<Outcome> warm_up;
  bool interrupted = false;
  double seconds = 0;  // from the beginning to the last end of a request
  double busy = 0;     // share of the time in which the generator's thread computed
};

// `on_end` is called after each measured request with the share of the load that is done, 0 to 1.
// If no request of the warm-up was answered the load is not sent. Throws Failure (kNetwork) if the
// host has no address.
Measurement measure(const LoadOptions& options, const Workload& workload,
                    const std::function<void(double)>& on_end);

}  // namespace flexllm::cli::bench
