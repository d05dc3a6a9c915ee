// Cycles of a module in virtual time, its outer streams always ready. Plain types only.
#pragma once

#include "kernels/hls/pragmas.h"

#if !FLEXLLM_HLS_TYPES

#include "kernels/hls/stream.h"
#include "kernels/hls/task.h"

namespace flexllm::kernels {

inline constexpr uint64_t kRegionCycles = latency::region_start + latency::region_end;

// Of the regions that `body` opens, one after the other.
template <typename Body>
uint64_t timed_cycles(const Body& body) {
  simulation::Timeline timeline;
  {
    const simulation::Scope scope({.timeline = &timeline});
    body();
  }
  return timeline.report().cycles;
}

}  // namespace flexllm::kernels

#endif
