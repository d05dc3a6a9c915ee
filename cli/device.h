// Which card a command computes on. Without a card, or on request, it is the emulated one: a
// library that stands below XRT and must be there when the program starts, so the program executes
// itself again with it (docs/emulated-card.md). Called once, before there is a second thread.
#pragma once

#include "cli/model.h"
#include "host/engine.h"

namespace flexllm::cli {

// Says on stderr what it chose, and returns how to open it. Does not return when the program has to
// start again on the emulated card; then this is called a second time. Throws Failure.
host::EngineOptions choose_device(const ModelOptions& options);

// Whether this program computes on the emulated card.
bool on_emulated_card();

}  // namespace flexllm::cli
