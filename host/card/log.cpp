#include "host/card/log.h"

#include <cstdio>
#include <cstdlib>

namespace flexllm::card {

bool logs(Level level) {
  static const int limit = [] {
    const char* text = std::getenv("FLEXLLM_CARD_LOG");
    return text != nullptr ? std::atoi(text) : static_cast<int>(Level::problem);
  }();
  return static_cast<int>(level) <= limit;
}

void log(Level level, const std::string& sentence) {
  if (logs(level)) std::fprintf(stderr, "emulated card: %s\n", sentence.c_str());
}

}  // namespace flexllm::card
