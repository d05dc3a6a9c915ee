// The pieces of JSON as a program: strings, numbers and what stands between values. White space is
// one space, or a line feed and up to 20 spaces or tabs, so that nobody can go on with it for ever.
#pragma once

#include <cstdint>
#include <map>
#include <string_view>
#include <utility>

#include "server/grammar/char_dfa.h"
#include "server/grammar/program.h"

namespace flexllm::server::grammar {

class JsonText {
 public:
  explicit JsonText(ProgramBuilder& builder) : builder_(builder) {}

  // Of the whole program.
  Effort& effort() { return effort_; }

  // Optional white space.
  Address space(Address next);
  // A string of `min` to `max` characters, each written in any way that JSON has.
  Address string(uint32_t min, uint32_t max, Address next);
  // A string that the automaton accepts; its characters stand for themselves unless JSON needs an
  // escape.
  Address string(const CharDfa& dfa, Address next);
  // What the automaton accepts, without quotes: numbers, free text. Nothing is escaped.
  Address plain(const CharDfa& dfa, Address next);

  // Any value, any object, any list of any values; rules to be called.
  Address value();
  Address object();
  Address list();

 private:
  enum class Escapes { none, needed };
  Address chars(const CharDfa& dfa, Escapes escapes, Address next);
  Address edge(const CharSet& set, Escapes escapes, Address next);
  Address utf8(const CharSet& set, Address next);
  Address any_character();  // a rule

  ProgramBuilder& builder_;
  Effort effort_;
  std::map<Address, Address> spaces_;
  Address character_ = 0;
  Address value_ = 0;
  Address object_ = 0;
  Address list_ = 0;
};

}  // namespace flexllm::server::grammar
