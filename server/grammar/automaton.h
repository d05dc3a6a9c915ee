// Runs a Program: determinises it while it is used and keeps what it found. A state is a small
// number, the same for equal situations, so that what follows from one can be kept by it. Not
// thread-safe; Grammar guards it.
#pragma once

#include <cstdint>
#include <unordered_map>
#include <utility>
#include <vector>

#include "server/grammar/program.h"

namespace flexllm::server::grammar {

using StateId = uint32_t;

// Where a text can be in the program: everything that an Automaton knows of a state, by itself.
struct Situation {
  struct Frame {
    Address at = 0;      // the call or repetition that is under way
    uint32_t count = 0;  // its rounds so far
  };
  struct Thread {
    Address at = 0;             // a byte or accept
    std::vector<Frame> frames;  // the outermost first
  };
  std::vector<Thread> threads;
};

class Automaton {
 public:
  static constexpr StateId kDead = 0;

  // `program` must outlive it.
  explicit Automaton(const Program& program);

  StateId start() const { return start_; }
  // kDead if no text goes on so. Deterministic: two automata of a program agree on what they take.
  StateId next(StateId state, uint8_t byte) {
    const uint32_t known = table_[state * program_.byte_classes + program_.byte_class[byte]];
    return known != kUnknown ? known : step(state, byte);
  }
  bool accepts(StateId state) const { return states_[state].accepts; }
  // Whether any byte can follow.
  bool goes_on(StateId state) const { return states_[state].goes_on; }

  size_t states() const { return states_.size(); }  // ids are below it
  // What it costs to go on from here: the ways to be in the grammar at once.
  size_t width(StateId state) const { return states_[state].threads.size(); }
  // Bytes that it holds, roughly.
  size_t memory() const;

  // To take a state from one automaton of a program to another.
  Situation describe(StateId state) const;
  StateId enter(const Situation& situation);

 private:
  static constexpr uint32_t kUnknown = ~0u;
  using StackId = uint32_t;  // 0: empty
  struct Frame {
    Address at;
    uint32_t count;
    StackId below;
    bool operator==(const Frame&) const = default;
  };
  struct Thread {
    Address at;
    StackId stack;
    auto operator<=>(const Thread&) const = default;
  };
  using Threads = std::vector<Thread>;
  struct Hash {
    size_t operator()(const Frame& frame) const;
    size_t operator()(const Thread& thread) const;
    size_t operator()(const Threads& threads) const;
  };
  struct State {
    Threads threads;  // ascending
    bool accepts = false;
    bool goes_on = false;
  };

  StateId step(StateId state, uint8_t byte);
  StackId push(Frame frame);
  // Adds what `thread` can be at before the next byte.
  void follow(Thread thread, Threads& out);
  StateId intern(Threads threads);

  const Program& program_;
  std::vector<Frame> frames_;
  std::unordered_map<Frame, StackId, Hash> frame_names_;
  std::vector<State> states_;
  std::unordered_map<Threads, StateId, Hash> state_names_;
  std::vector<StateId> table_;  // [state][byte class]
  size_t threads_ = 0;          // of all states
  StateId start_ = kDead;
};

}  // namespace flexllm::server::grammar
