// Does a card compute what docs/numerics.md says? Runs launches of a small model on it, layer by
// layer and whole, and compares every output and KV record with the twin in this process, bit for
// bit. Blocks for about a second; call it while nothing else uses the card.
#pragma once

#include <string>
#include <tl/expected.hpp>

#include "host/device_error.h"
#include "host/engine.h"

namespace flexllm::host {

struct SelftestReport {
  bool passed = false;
  uint32_t launches = 0;        // that were compared
  bool compared_pages = false;  // false: the card cannot copy pages to the host
  // The first difference: stage, layer, module and place, with both values. Empty if there is none.
  std::string difference;
};

// `options` are those of an engine; its bitstream stays loaded afterwards.
tl::expected<SelftestReport, DeviceError> run_selftest(const EngineOptions& options);

}  // namespace flexllm::host
