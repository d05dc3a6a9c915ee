// Regular expressions as ECMA-262 writes them (without flags), those that describe a regular
// language: characters, classes, groups, alternatives, repetitions, and anchors at the ends.
// Refused by their name: assertions other than those anchors, back references, \b, \p. Pure
// functions.
#pragma once

#include <string_view>

#include "server/grammar/char_dfa.h"

namespace flexllm::server::grammar {

enum class Match {
  somewhere,  // JSON Schema's `pattern`: any part of the text, unless ^ and $ say otherwise
  whole,
};

// Throws Refused, whose message continues the name of what held the pattern.
CharDfa compile_regex(std::string_view pattern, Match match, Effort& effort);

}  // namespace flexllm::server::grammar
