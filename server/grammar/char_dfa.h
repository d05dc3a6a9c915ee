// Deterministic automata over characters: what a regular expression, a bound on the length or a
// range of numbers says of a text. Every state can reach an accepting one. Plain values.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "server/grammar/char_set.h"
#include "server/grammar/refusal.h"

namespace flexllm::server::grammar {

struct CharDfa {
  struct State {
    std::vector<std::pair<CharSet, uint32_t>> edges;  // disjoint sets
    bool accepts = false;
  };
  std::vector<State> states;  // the first is the start; none: nothing is accepted

  bool accepts_nothing() const { return states.empty(); }
  bool accepts(std::u32string_view text) const;
};

inline constexpr size_t kMaxDfaStates = 16384;

// An automaton without its determinism: the raw material of regular expressions.
struct CharNfa {
  struct State {
    std::vector<std::pair<CharSet, uint32_t>> edges;
    std::vector<uint32_t> silent;  // moves without a character
  };
  std::vector<State> states;
  uint32_t start = 0;
  uint32_t accept = 0;
};

// Throw Refused for what would be too large.
CharDfa determinise(const CharNfa& nfa, Effort& effort);
CharDfa intersection(const CharDfa& a, const CharDfa& b, Effort& effort);
// Texts of `min` to `max` characters; without `max` there is no upper bound.
CharDfa of_length(uint64_t min, std::optional<uint64_t> max);
// All texts but these.
CharDfa all_but(const std::vector<std::u32string>& texts);

}  // namespace flexllm::server::grammar
