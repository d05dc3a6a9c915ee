// A grammar over bytes as a small program: a pushdown automaton whose rules are called and return,
// and whose repetitions count. Every instruction can go on to the end. Immutable once built.
#pragma once

#include <array>
#include <bitset>
#include <cstdint>
#include <map>
#include <optional>
#include <string_view>
#include <vector>

namespace flexllm::server::grammar {

using ByteSet = std::bitset<256>;
using Address = uint32_t;

inline constexpr uint32_t kUnbounded = ~0u;

struct Instruction {
  enum class Op : uint8_t {
    byte,    // takes one byte of sets[set], goes on at `next`
    split,   // goes on at any of splits[set]
    call,    // goes on at `body`; what returns there goes on at `next`
    repeat,  // `body` `min` to `max` times, each ends with a return; then `next`
    ret,     // ends the innermost call or round of a repetition
    accept,  // the text may end here
  };
  Op op = Op::split;
  uint32_t set = 0;
  Address body = 0;
  Address next = 0;
  uint32_t min = 0;
  uint32_t max = 0;
};

struct Program {
  std::vector<Instruction> code;
  std::vector<ByteSet> sets;
  std::vector<std::vector<Address>> splits;
  Address start = 0;
  // Bytes that no set tells apart have the same class.
  std::array<uint8_t, 256> byte_class{};
  uint32_t byte_classes = 0;
};

inline constexpr size_t kMaxInstructions = 200'000;

// Builds from the end to the beginning: each call names what comes after it and gives the address
// of the whole. Throws Refused when the program grows too large.
class ProgramBuilder {
 public:
  ProgramBuilder();

  Address ret() const { return ret_; }
  Address accept() const { return accept_; }
  Address nothing();  // matches no text
  Address bytes(const ByteSet& set, Address next);
  Address byte(char c, Address next);
  Address literal(std::string_view text, Address next);
  Address split(std::vector<Address> targets);
  Address call(Address body, Address next);
  Address repeat(Address body, uint32_t min, uint32_t max, Address next);
  // For what refers to itself: an address now, what is there later.
  Address reserve();
  void define(Address reserved, Address target);

  // The program from `start` on, with only the bytes of `available`. Nothing if no text is left
  // that it takes. Throws Refused if a rule begins with itself.
  std::optional<Program> finish(Address start, const ByteSet& available);

 private:
  Address add(Instruction instruction);
  std::vector<bool> productive() const;
  void check_left_recursion(Address start) const;

  Program program_;
  std::map<std::string, uint32_t> set_names_;
  Address ret_ = 0;
  Address accept_ = 0;
};

}  // namespace flexllm::server::grammar
