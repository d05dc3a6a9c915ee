// The files that a card has below /sys/bus/pci/devices/<bdf>/, made anew from its state at each
// look. Nothing is written to disk.
#pragma once

#include <map>
#include <string>

#include "host/card/card.h"

namespace flexllm::card {

// Relative path -> content. A path that ends in '/' is an empty directory.
std::map<std::string, std::string> board_files(const Card& card);

}  // namespace flexllm::card
