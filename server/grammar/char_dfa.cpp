#include "server/grammar/char_dfa.h"

#include <algorithm>
#include <map>
#include <set>

namespace flexllm::server::grammar {
namespace {

// Removes states from which nothing can be accepted, and those that cannot be reached.
CharDfa trimmed(const CharDfa& dfa) {
  const size_t count = dfa.states.size();
  std::vector<std::vector<uint32_t>> sources(count);
  std::vector<bool> live(count, false);
  std::vector<uint32_t> work;
  for (uint32_t s = 0; s < count; ++s) {
    for (const auto& [set, target] : dfa.states[s].edges) sources[target].push_back(s);
    if (dfa.states[s].accepts) {
      live[s] = true;
      work.push_back(s);
    }
  }
  while (!work.empty()) {
    const uint32_t s = work.back();
    work.pop_back();
    for (const uint32_t source : sources[s]) {
      if (live[source]) continue;
      live[source] = true;
      work.push_back(source);
    }
  }
  CharDfa out;
  if (count == 0 || !live[0]) return out;
  constexpr uint32_t kNone = ~0u;
  std::vector<uint32_t> names(count, kNone);
  std::vector<uint32_t> order{0};
  names[0] = 0;
  for (size_t i = 0; i < order.size(); ++i) {
    const auto& from = dfa.states[order[i]];
    CharDfa::State state{.edges = {}, .accepts = from.accepts};
    for (const auto& [set, target] : from.edges) {
      if (!live[target]) continue;
      if (names[target] == kNone) {
        names[target] = static_cast<uint32_t>(order.size());
        order.push_back(target);
      }
      state.edges.emplace_back(set, names[target]);
    }
    out.states.push_back(std::move(state));
  }
  return out;
}

// Disjoint sets so that each edge of the automaton is a union of some.
std::vector<CharSet> alphabet(const CharNfa& nfa, Effort& effort) {
  std::set<CharSet> distinct;
  for (const auto& state : nfa.states) {
    for (const auto& [set, target] : state.edges) distinct.insert(set);
  }
  const std::vector<CharSet> sets(distinct.begin(), distinct.end());
  std::set<char32_t> cuts;
  for (const auto& set : sets) {
    for (const auto& range : set.ranges()) {
      cuts.insert(range.low);
      cuts.insert(range.high + 1);
    }
  }
  effort.spend(cuts.size() * sets.size());
  // Intervals that are in the same sets are one letter.
  std::map<std::vector<bool>, CharSet> letters;
  for (auto cut = cuts.begin(); cut != cuts.end(); ++cut) {
    const auto next = std::next(cut);
    if (next == cuts.end()) break;
    std::vector<bool> member(sets.size());
    bool any = false;
    for (size_t i = 0; i < sets.size(); ++i) any |= member[i] = sets[i].contains(*cut);
    if (any) letters[member].add({*cut, *next - 1});
  }
  std::vector<CharSet> out;
  for (auto& [member, set] : letters) out.push_back(std::move(set));
  return out;
}

}  // namespace

bool CharDfa::accepts(std::u32string_view text) const {
  if (states.empty()) return false;
  uint32_t at = 0;
  for (const char32_t c : text) {
    const auto& edges = states[at].edges;
    const auto edge = std::find_if(edges.begin(), edges.end(),
                                   [c](const auto& e) { return e.first.contains(c); });
    if (edge == edges.end()) return false;
    at = edge->second;
  }
  return states[at].accepts;
}

CharDfa determinise(const CharNfa& nfa, Effort& effort) {
  const std::vector<CharSet> letters = alphabet(nfa, effort);
  auto closed = [&](std::set<uint32_t> states) {
    std::vector<uint32_t> open(states.begin(), states.end());
    while (!open.empty()) {
      const uint32_t s = open.back();
      open.pop_back();
      for (const uint32_t next : nfa.states[s].silent) {
        effort.spend(1);
        if (states.insert(next).second) open.push_back(next);
      }
    }
    return states;
  };
  std::map<std::set<uint32_t>, uint32_t> names;
  std::vector<std::set<uint32_t>> order;
  auto name = [&](std::set<uint32_t> states) {
    const auto [entry, fresh] = names.emplace(states, static_cast<uint32_t>(order.size()));
    if (fresh) order.push_back(std::move(states));
    if (order.size() > kMaxDfaStates) refuse("is too large a pattern.");
    return entry->second;
  };
  name(closed({nfa.start}));
  CharDfa dfa;
  for (size_t i = 0; i < order.size(); ++i) {
    CharDfa::State state{.edges = {}, .accepts = order[i].contains(nfa.accept)};
    std::map<uint32_t, CharSet> edges;
    for (const auto& letter : letters) {
      const char32_t c = letter.ranges().front().low;
      std::set<uint32_t> next;
      for (const uint32_t s : order[i]) {
        for (const auto& [set, target] : nfa.states[s].edges) {
          effort.spend(1);
          if (set.contains(c)) next.insert(target);
        }
      }
      if (!next.empty()) edges[name(closed(std::move(next)))].add(letter);
    }
    for (auto& [target, set] : edges) state.edges.emplace_back(std::move(set), target);
    dfa.states.push_back(std::move(state));
  }
  return trimmed(dfa);
}

CharDfa intersection(const CharDfa& a, const CharDfa& b, Effort& effort) {
  CharDfa out;
  if (a.accepts_nothing() || b.accepts_nothing()) return out;
  std::map<std::pair<uint32_t, uint32_t>, uint32_t> names;
  std::vector<std::pair<uint32_t, uint32_t>> order;
  auto name = [&](uint32_t s, uint32_t t) {
    const auto [entry, fresh] = names.emplace(std::pair(s, t), static_cast<uint32_t>(order.size()));
    if (fresh) order.emplace_back(s, t);
    if (order.size() > kMaxDfaStates) {
      refuse("is too large together with what else the schema says of the value.");
    }
    return entry->second;
  };
  name(0, 0);
  for (size_t i = 0; i < order.size(); ++i) {
    const auto [s, t] = order[i];
    CharDfa::State state{.edges = {}, .accepts = a.states[s].accepts && b.states[t].accepts};
    for (const auto& [set, to] : a.states[s].edges) {
      for (const auto& [other, other_to] : b.states[t].edges) {
        effort.spend(1 + set.ranges().size());
        CharSet both = set.intersection(other);
        if (!both.empty()) state.edges.emplace_back(std::move(both), name(to, other_to));
      }
    }
    out.states.push_back(std::move(state));
  }
  return trimmed(out);
}

CharDfa of_length(uint64_t min, std::optional<uint64_t> max) {
  CharDfa dfa;
  if (max && *max < min) return dfa;
  const uint64_t last = max.value_or(min);
  if (last >= kMaxDfaStates) refuse("is too long a text together with a pattern or format.");
  for (uint64_t n = 0; n <= last; ++n) {
    CharDfa::State state{.edges = {}, .accepts = n >= min};
    if (n < last) state.edges.emplace_back(CharSet::all(), static_cast<uint32_t>(n + 1));
    if (n == last && !max) state.edges.emplace_back(CharSet::all(), static_cast<uint32_t>(n));
    dfa.states.push_back(std::move(state));
  }
  return dfa;
}

// The tree of the texts, and a state for all that has left it.
CharDfa all_but(const std::vector<std::u32string>& texts) {
  CharDfa dfa;
  dfa.states.push_back({.edges = {{CharSet::all(), 0}}, .accepts = true});  // free
  std::vector<std::map<char32_t, uint32_t>> children{{}, {}};
  std::vector<bool> forbidden{false, false};
  for (const auto& text : texts) {
    uint32_t at = 1;
    for (const char32_t c : text) {
      const auto [entry, fresh] = children[at].emplace(c, static_cast<uint32_t>(children.size()));
      const uint32_t next = entry->second;
      if (fresh) {
        children.emplace_back();
        forbidden.push_back(false);
      }
      at = next;
    }
    forbidden[at] = true;
  }
  for (uint32_t s = 1; s < children.size(); ++s) {
    CharDfa::State state{.edges = {}, .accepts = !forbidden[s]};
    CharSet listed;
    for (const auto& [c, next] : children[s]) {
      state.edges.emplace_back(CharSet{{c, c}}, next);
      listed.add({c, c});
    }
    state.edges.emplace_back(listed.complement(), 0);
    dfa.states.push_back(std::move(state));
  }
  // The start comes first.
  std::swap(dfa.states[0], dfa.states[1]);
  for (auto& state : dfa.states) {
    for (auto& [set, target] : state.edges) {
      if (target < 2) target = 1 - target;
    }
  }
  return dfa;
}

}  // namespace flexllm::server::grammar
