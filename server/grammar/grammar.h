// What a request's text must look like, over one vocabulary: which tokens may come next. Shared by
// all choices of all requests with the same schema; thread-safe. A Matcher is the place of one
// choice in it and belongs to one thread.
#pragma once

#include <cstdint>
#include <list>
#include <memory>
#include <mutex>
#include <string_view>
#include <unordered_map>

#include "host/sampler.h"
#include "server/grammar/automaton.h"
#include "server/grammar/program.h"
#include "server/grammar/token_trie.h"

namespace flexllm::server::grammar {

struct GrammarLimits {
  size_t automaton_bytes = size_t{8} << 20;  // beyond it the automaton starts afresh
  size_t mask_bytes = size_t{8} << 20;       // kept masks, the least recently used go first
};

class Grammar {
 public:
  Grammar(Program program, std::shared_ptr<const TokenTrie> trie, const GrammarLimits& limits = {});

 private:
  friend class Matcher;
  using Mask = std::shared_ptr<const host::AllowedTokens>;
  struct Kept {
    Mask mask;
    std::list<StateId>::iterator use;
  };
  // An automaton and what was found with it. Who is in an old one keeps it alive until its next
  // step.
  struct Tables {
    explicit Tables(const Program& program) : automaton(program) {}
    Automaton automaton;
    std::unordered_map<StateId, Kept> masks;
    std::list<StateId> uses;  // the most recent first
  };

  Mask mask(Tables& tables, StateId state) const;
  Mask compute(Automaton& automaton, StateId state) const;
  bool walk(Automaton& automaton, StateId state, uint32_t depth, host::AllowedTokens& mask) const;
  std::shared_ptr<Tables> tables() const;  // the current ones; under the lock

  const Program program_;
  const std::shared_ptr<const TokenTrie> trie_;
  const GrammarLimits limits_;
  mutable std::mutex mutex_;  // of all that is mutable here and of all Tables
  mutable std::shared_ptr<Tables> tables_;
};

class Matcher {
 public:
  explicit Matcher(std::shared_ptr<const Grammar> grammar);

  // Tokens of text that may come next. None where only the end is left.
  std::shared_ptr<const host::AllowedTokens> allowed();
  // Takes the bytes of a token. False if the grammar does not allow them; then nothing follows.
  bool accept(std::string_view bytes);
  bool may_end() const;   // the text so far is whole
  bool finished() const;  // and nothing can be added to it

 private:
  void move_in();  // to the current tables; under the lock

  std::shared_ptr<const Grammar> grammar_;
  std::shared_ptr<Grammar::Tables> tables_;
  StateId state_ = Automaton::kDead;
};

}  // namespace flexllm::server::grammar
