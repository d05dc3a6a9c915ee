// What a card and the runtime over it tell about themselves. The Engine writes the counters, which
// go on through a reset; any thread may read them, and the board, while it computes, hangs or is
// reset.
#pragma once

#include <atomic>
#include <cstdint>
#include <optional>
#include <string>

namespace flexllm::host {

// What the board measures; absent where it does not tell.
struct BoardReading {
  std::optional<double> watts;    // of the whole board
  std::optional<double> celsius;  // of the FPGA
};

// Bytes that the host moved over the bus, by direction.
struct CopyCounters {
  std::atomic<uint64_t> to_card{0};
  std::atomic<uint64_t> from_card{0};
};

struct DeviceTelemetry {
  std::string bdf;  // set once, before others see it; empty: there is no board to ask
  CopyCounters copied;
  std::atomic<uint64_t> timeouts{0};  // launches that did not end in time
  std::atomic<uint64_t> resets{0};    // recoveries that were begun

  // Reads the driver's files (in /sys, not through XRT): a fraction of a millisecond.
  BoardReading board() const;
};

}  // namespace flexllm::host
