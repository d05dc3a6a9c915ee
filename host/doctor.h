// What stands between this program and a working card: one finding for each thing that must be
// right, from the driver up to the memory banks, with what to do where it is not. Needs no card and
// no driver to give a clean answer. For `flexllm doctor`; one thread, before others use the card.
#pragma once

#include <string>
#include <vector>

#include "host/engine.h"

namespace flexllm::host {

struct Finding {
  enum class Level { good, warning, failure };
  Level level = Level::good;
  std::string name;  // "driver", "bitstream", ...
  std::string what;  // one sentence
  std::string mend;  // what to do; empty if nothing is to be done
};

const char* to_string(Finding::Level level);

// Examines the machine and the card `options.device`. With a bitstream it is loaded, unless the
// card is in use. Stops after the first failure that hides what comes after it.
std::vector<Finding> examine(const EngineOptions& options);

// The self-test as a finding (selftest.h).
Finding examine_results(const EngineOptions& options);

bool healthy(const std::vector<Finding>& findings);  // no failure among them

}  // namespace flexllm::host
