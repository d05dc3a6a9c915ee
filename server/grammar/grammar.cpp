#include "server/grammar/grammar.h"

#include <algorithm>
#include <bit>
#include <utility>
#include <vector>

namespace flexllm::server::grammar {
namespace {

// Of one mask: the widths of all states that it comes through.
constexpr size_t kMaxWork = 100'000;

}  // namespace

Grammar::Grammar(Program program, std::shared_ptr<const TokenTrie> trie,
                 const GrammarLimits& limits)
    : program_(std::move(program)),
      trie_(std::move(trie)),
      limits_(limits),
      tables_(std::make_shared<Tables>(program_)) {}

std::shared_ptr<Grammar::Tables> Grammar::tables() const {
  if (tables_->automaton.memory() > limits_.automaton_bytes) {
    tables_ = std::make_shared<Tables>(program_);
  }
  return tables_;
}

// One walk over the tokens of up to `depth` bytes, with the state at each depth of the path to the
// current node. False if it was given up: how much work it is does not depend on what is known
// already, so the same request gets the same tokens.
bool Grammar::walk(Automaton& automaton, StateId state, uint32_t depth,
                   host::AllowedTokens& mask) const {
  std::vector<StateId> path(depth + 1);
  path[0] = state;
  size_t work = 0;
  std::vector<bool> seen(automaton.states());
  const auto& nodes = trie_->nodes();
  for (size_t i = 0; i < nodes.size();) {
    const auto& node = nodes[i];
    if (node.depth > depth) {
      i = node.end;
      continue;
    }
    const StateId next = automaton.next(path[node.depth - 1], node.byte);
    if (next == Automaton::kDead) {
      i = node.end;
      continue;
    }
    if (next >= seen.size()) seen.resize(2 * automaton.states());
    if (!seen[next]) {
      seen[next] = true;
      work += automaton.width(next);
      if (depth > 1 && work > kMaxWork) return false;
    }
    path[node.depth] = next;
    for (const uint32_t token : trie_->tokens_at(i)) {
      mask.words[token / 64] |= uint64_t{1} << (token % 64);
    }
    ++i;
  }
  return true;
}

Grammar::Mask Grammar::compute(Automaton& automaton, StateId state) const {
  auto mask = std::make_shared<host::AllowedTokens>();
  mask->words.resize((trie_->vocab() + 63) / 64);
  // Where all tokens would be too much work those of one byte are enough to go on.
  if (!walk(automaton, state, trie_->max_depth(), *mask)) {
    std::fill(mask->words.begin(), mask->words.end(), 0);
    walk(automaton, state, 1, *mask);
  }
  for (const uint64_t word : mask->words) {
    mask->count += static_cast<uint32_t>(std::popcount(word));
  }
  return mask;
}

Grammar::Mask Grammar::mask(Tables& tables, StateId state) const {
  auto& masks = tables.masks;
  auto& uses = tables.uses;
  if (const auto known = masks.find(state); known != masks.end()) {
    uses.splice(uses.begin(), uses, known->second.use);
    return known->second.mask;
  }
  Mask mask = compute(tables.automaton, state);
  uses.push_front(state);
  masks.emplace(state, Kept{mask, uses.begin()});
  const size_t bytes = mask->words.size() * sizeof(uint64_t);
  while (masks.size() > 1 && masks.size() * bytes > limits_.mask_bytes) {
    masks.erase(uses.back());
    uses.pop_back();
  }
  return mask;
}

Matcher::Matcher(std::shared_ptr<const Grammar> grammar) : grammar_(std::move(grammar)) {
  const std::lock_guard lock(grammar_->mutex_);
  tables_ = grammar_->tables();
  state_ = tables_->automaton.start();
}

void Matcher::move_in() {
  auto current = grammar_->tables();
  if (current == tables_) return;
  state_ = current->automaton.enter(tables_->automaton.describe(state_));
  tables_ = std::move(current);
}

std::shared_ptr<const host::AllowedTokens> Matcher::allowed() {
  const std::lock_guard lock(grammar_->mutex_);
  move_in();
  return grammar_->mask(*tables_, state_);
}

bool Matcher::accept(std::string_view bytes) {
  const std::lock_guard lock(grammar_->mutex_);
  move_in();
  for (const char c : bytes) state_ = tables_->automaton.next(state_, static_cast<uint8_t>(c));
  return state_ != Automaton::kDead;
}

bool Matcher::may_end() const {
  const std::lock_guard lock(grammar_->mutex_);
  return tables_->automaton.accepts(state_);
}

bool Matcher::finished() const {
  const std::lock_guard lock(grammar_->mutex_);
  return tables_->automaton.accepts(state_) && !tables_->automaton.goes_on(state_);
}

}  // namespace flexllm::server::grammar
