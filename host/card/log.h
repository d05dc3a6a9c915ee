// The card's own log, on standard error. FLEXLLM_CARD_LOG: 0 nothing, 1 what failed and faults
// (default), 2 also loads, opens and launches. Any thread.
#pragma once

#include <string>

namespace flexllm::card {

enum class Level { problem = 1, event = 2 };

bool logs(Level level);
void log(Level level, const std::string& sentence);

}  // namespace flexllm::card
