#include "server/grammar/program.h"

#include <algorithm>
#include <string>
#include <utility>

#include "server/grammar/refusal.h"

namespace flexllm::server::grammar {

using Op = Instruction::Op;

ProgramBuilder::ProgramBuilder() {
  ret_ = add({.op = Op::ret});
  accept_ = add({.op = Op::accept});
}

Address ProgramBuilder::add(Instruction instruction) {
  if (program_.code.size() >= kMaxInstructions) refuse("The schema is too large.");
  program_.code.push_back(instruction);
  return static_cast<Address>(program_.code.size() - 1);
}

Address ProgramBuilder::nothing() { return split({}); }

Address ProgramBuilder::bytes(const ByteSet& set, Address next) {
  const auto [entry, fresh] =
      set_names_.emplace(set.to_string(), static_cast<uint32_t>(program_.sets.size()));
  if (fresh) program_.sets.push_back(set);
  return add({.op = Op::byte, .set = entry->second, .next = next});
}

Address ProgramBuilder::byte(char c, Address next) {
  return bytes(ByteSet().set(static_cast<uint8_t>(c)), next);
}

Address ProgramBuilder::literal(std::string_view text, Address next) {
  for (size_t i = text.size(); i-- > 0;) next = byte(text[i], next);
  return next;
}

Address ProgramBuilder::split(std::vector<Address> targets) {
  program_.splits.push_back(std::move(targets));
  return add({.op = Op::split, .set = static_cast<uint32_t>(program_.splits.size() - 1)});
}

Address ProgramBuilder::call(Address body, Address next) {
  // A call that would only return again is none: the stack stays small.
  if (next == ret_) return body;
  return add({.op = Op::call, .body = body, .next = next});
}

Address ProgramBuilder::repeat(Address body, uint32_t min, uint32_t max, Address next) {
  if (max == 0) return next;
  return add({.op = Op::repeat, .body = body, .next = next, .min = min, .max = max});
}

Address ProgramBuilder::reserve() { return nothing(); }

void ProgramBuilder::define(Address reserved, Address target) {
  program_.splits[program_.code[reserved].set] = {target};
}

// The instructions from which the end of their rule can be reached. Each is looked at again only
// when something that it depends on has become so.
std::vector<bool> ProgramBuilder::productive() const {
  const auto& code = program_.code;
  std::vector<std::vector<Address>> dependents(code.size());
  for (Address at = 0; at < code.size(); ++at) {
    const auto& i = code[at];
    if (i.op == Op::byte || i.op == Op::call || i.op == Op::repeat)
      dependents[i.next].push_back(at);
    if (i.op == Op::call || i.op == Op::repeat) dependents[i.body].push_back(at);
    if (i.op == Op::split) {
      for (const Address target : program_.splits[i.set]) dependents[target].push_back(at);
    }
  }
  std::vector<bool> good(code.size(), false);
  auto holds = [&](const Instruction& i) {
    switch (i.op) {
      case Op::byte:
        return program_.sets[i.set].any() && good[i.next];
      case Op::split: {
        const auto& targets = program_.splits[i.set];
        return std::any_of(targets.begin(), targets.end(), [&](Address t) { return good[t]; });
      }
      case Op::call:
        return good[i.body] && good[i.next];
      case Op::repeat:
        return (i.min == 0 || good[i.body]) && good[i.next];
      default:
        return true;
    }
  };
  std::vector<Address> work;
  for (Address at = 0; at < code.size(); ++at) work.push_back(at);
  while (!work.empty()) {
    const Address at = work.back();
    work.pop_back();
    if (good[at] || !holds(code[at])) continue;
    good[at] = true;
    work.insert(work.end(), dependents[at].begin(), dependents[at].end());
  }
  return good;
}

// Depth-first over what can be reached without a byte. What is called is never empty in the
// grammars built here, so the instruction after a call comes after a byte; a round of a repetition
// likewise.
void ProgramBuilder::check_left_recursion(Address start) const {
  enum class Mark : uint8_t { fresh, open, done };
  const auto& code = program_.code;
  std::vector<Mark> marks(code.size(), Mark::fresh);
  struct Visit {
    Address at;
    size_t child;
  };
  auto children = [&](Address at) {
    const auto& i = code[at];
    if (i.op == Op::split) return program_.splits[i.set];
    if (i.op == Op::call) return std::vector<Address>{i.body};
    if (i.op == Op::repeat) {
      return i.min == 0 ? std::vector<Address>{i.body, i.next} : std::vector<Address>{i.body};
    }
    return std::vector<Address>();
  };
  std::vector<Address> roots{start};
  for (Address at = 0; at < code.size(); ++at) roots.push_back(at);
  for (const Address root : roots) {
    if (marks[root] != Mark::fresh) continue;
    std::vector<Visit> path{{root, 0}};
    marks[root] = Mark::open;
    while (!path.empty()) {
      auto& [at, child] = path.back();
      const auto next = children(at);
      if (child == next.size()) {
        marks[at] = Mark::done;
        path.pop_back();
        continue;
      }
      const Address to = next[child++];
      if (marks[to] == Mark::open) refuse("A schema refers to itself without anything in between.");
      if (marks[to] == Mark::fresh) {
        marks[to] = Mark::open;
        path.push_back({to, 0});
      }
    }
  }
}

std::optional<Program> ProgramBuilder::finish(Address start, const ByteSet& available) {
  for (auto& set : program_.sets) set &= available;
  const auto good = productive();
  if (!good[start]) return std::nullopt;
  for (auto& targets : program_.splits) {
    std::erase_if(targets, [&](Address target) { return !good[target]; });
  }
  for (auto& i : program_.code) {
    if (i.op != Op::repeat || good[i.body]) continue;
    program_.splits.push_back({i.next});
    i = {.op = Op::split, .set = static_cast<uint32_t>(program_.splits.size() - 1)};
  }
  check_left_recursion(start);
  program_.start = start;
  auto& classes = program_.byte_class;
  program_.byte_classes = 1;
  for (const auto& set : program_.sets) {
    std::map<std::pair<uint8_t, bool>, uint8_t> names;
    for (size_t b = 0; b < 256; ++b) {
      const std::pair key(classes[b], set.test(b));
      classes[b] = names.emplace(key, static_cast<uint8_t>(names.size())).first->second;
    }
    program_.byte_classes = static_cast<uint32_t>(names.size());
  }
  return std::move(program_);
}

}  // namespace flexllm::server::grammar
