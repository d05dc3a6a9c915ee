// Numbers as JSON writes them, within bounds, as automata over their characters. Pure functions.
//
// A number without bounds has up to 18 digits before the point, 17 after it and an exponent of
// less than 290, so that it has an end and a binary64; one with bounds has no exponent and up to 17
// characters, so that what is read back as binary64 keeps to its bounds.
#pragma once

#include <nlohmann/json.hpp>
#include <optional>

#include "server/grammar/char_dfa.h"

namespace flexllm::server::grammar {

struct NumberBounds {
  bool integer = false;                           // no point, no exponent
  std::optional<nlohmann::ordered_json> minimum;  // numbers
  std::optional<nlohmann::ordered_json> maximum;
  std::optional<nlohmann::ordered_json> exclusive_minimum;
  std::optional<nlohmann::ordered_json> exclusive_maximum;
};

CharDfa any_number(Effort& effort);
// Throws Refused if a bound has more than 15 digits before or after the point.
CharDfa number_within(const NumberBounds& bounds, Effort& effort);

}  // namespace flexllm::server::grammar
