#include "server/grammar/automaton.h"

#include <algorithm>
#include <unordered_set>

namespace flexllm::server::grammar {
namespace {

using Op = Instruction::Op;

// Ways to be in the grammar at once. Beyond it some are dropped, which leaves valid texts out and
// lets no invalid one in; each way that stays can go on to the end.
constexpr size_t kMaxThreads = 512;

size_t mixed(size_t hash, uint64_t value) {
  hash = (hash ^ value) * 0x9E3779B97F4A7C15ull;
  return hash ^ (hash >> 29);
}

}  // namespace

size_t Automaton::Hash::operator()(const Frame& frame) const {
  return mixed(mixed(mixed(1, frame.at), frame.count), frame.below);
}

size_t Automaton::Hash::operator()(const Thread& thread) const {
  return mixed(mixed(2, thread.at), thread.stack);
}

size_t Automaton::Hash::operator()(const Threads& threads) const {
  size_t hash = 3;
  for (const auto& thread : threads) hash = mixed(mixed(hash, thread.at), thread.stack);
  return hash;
}

Automaton::Automaton(const Program& program) : program_(program) {
  frames_.push_back({});  // the empty stack
  intern({});             // kDead
  Threads threads;
  follow({program.start, 0}, threads);
  start_ = intern(std::move(threads));
}

Automaton::StackId Automaton::push(Frame frame) {
  const auto [entry, fresh] = frame_names_.emplace(frame, static_cast<StackId>(frames_.size()));
  if (fresh) frames_.push_back(frame);
  return entry->second;
}

void Automaton::follow(Thread first, Threads& out) {
  std::unordered_set<Thread, Hash> seen;
  std::vector<Thread> work;
  auto go = [&](Address at, StackId stack) {
    if (seen.size() < 4 * kMaxThreads && seen.insert({at, stack}).second) {
      work.push_back({at, stack});
    }
  };
  // Another round of the repetition at `at`, or what comes after it.
  auto round = [&](Address at, uint32_t count, StackId below) {
    const Instruction& i = program_.code[at];
    if (count >= i.min) go(i.next, below);
    if (count < i.max) {
      // Without an upper bound rounds beyond the lower one need not be told apart.
      const uint32_t kept = i.max == kUnbounded ? std::min(count, i.min) : count;
      go(i.body, push({at, kept, below}));
    }
  };
  go(first.at, first.stack);
  while (!work.empty()) {
    const auto [at, stack] = work.back();
    work.pop_back();
    const Instruction& i = program_.code[at];
    switch (i.op) {
      case Op::byte:
      case Op::accept:
        out.push_back({at, stack});
        break;
      case Op::split:
        for (const Address target : program_.splits[i.set]) go(target, stack);
        break;
      case Op::call:
        go(i.body, push({at, 0, stack}));
        break;
      case Op::repeat:
        round(at, 0, stack);
        break;
      case Op::ret: {
        const Frame frame = frames_[stack];
        const Instruction& caller = program_.code[frame.at];
        if (caller.op == Op::call) {
          go(caller.next, frame.below);
        } else {
          round(frame.at, frame.count + 1, frame.below);
        }
        break;
      }
    }
  }
}

StateId Automaton::intern(Threads threads) {
  std::sort(threads.begin(), threads.end());
  threads.erase(std::unique(threads.begin(), threads.end()), threads.end());
  if (threads.size() > kMaxThreads) threads.resize(kMaxThreads);
  const auto [entry, fresh] = state_names_.emplace(threads, static_cast<StateId>(states_.size()));
  if (!fresh) return entry->second;
  State state;
  for (const auto& thread : threads) {
    (program_.code[thread.at].op == Op::accept ? state.accepts : state.goes_on) = true;
  }
  threads_ += threads.size();
  state.threads = std::move(threads);
  states_.push_back(std::move(state));
  // What is dead stays dead.
  table_.resize(states_.size() * program_.byte_classes, states_.size() == 1 ? kDead : kUnknown);
  return entry->second;
}

StateId Automaton::step(StateId state, uint8_t byte) {
  Threads threads;
  for (size_t t = 0; t < states_[state].threads.size(); ++t) {
    const Thread thread = states_[state].threads[t];
    const Instruction& i = program_.code[thread.at];
    if (i.op != Op::byte || !program_.sets[i.set].test(byte)) continue;
    follow({i.next, thread.stack}, threads);
    if (threads.size() > 4 * kMaxThreads) break;
  }
  const StateId to = intern(std::move(threads));
  table_[state * program_.byte_classes + program_.byte_class[byte]] = to;
  return to;
}

size_t Automaton::memory() const {
  return table_.size() * sizeof(StateId) + states_.size() * 2 * sizeof(State) +
         threads_ * 2 * sizeof(Thread) + frames_.size() * 3 * sizeof(Frame);
}

Situation Automaton::describe(StateId state) const {
  Situation out;
  for (const auto& thread : states_[state].threads) {
    Situation::Thread copy{.at = thread.at, .frames = {}};
    for (StackId at = thread.stack; at != 0; at = frames_[at].below) {
      copy.frames.push_back({frames_[at].at, frames_[at].count});
    }
    std::reverse(copy.frames.begin(), copy.frames.end());
    out.threads.push_back(std::move(copy));
  }
  return out;
}

StateId Automaton::enter(const Situation& situation) {
  Threads threads;
  for (const auto& thread : situation.threads) {
    StackId stack = 0;
    for (const auto& frame : thread.frames) stack = push({frame.at, frame.count, stack});
    threads.push_back({thread.at, stack});
  }
  return intern(std::move(threads));
}

}  // namespace flexllm::server::grammar
