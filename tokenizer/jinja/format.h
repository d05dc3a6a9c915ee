// Values as text: str(), repr() and json.dumps() of Python. What strings contribute keeps its
// origin; quotes, brackets and numbers count as the template's.
#pragma once

#include <optional>
#include <string>

#include "tokenizer/jinja/run.h"

namespace flexllm::tokenizer::jinja {

// str(value) at the end of `out`.
void append_str(Run& run, Text& out, const Value& value);
Text to_str(Run& run, const Value& value);

// repr(value) at the end of `out`.
void append_repr(Run& run, Text& out, const Value& value);

// repr(number): the shortest digits that give the same number.
std::string float_repr(double number);

// The arguments of json.dumps that templates give.
struct JsonStyle {
  std::optional<std::string> indent;  // of one level; absent: everything on one line
  std::string item_separator = ", ";
  std::string key_separator = ": ";
  bool ensure_ascii = false;
  bool sort_keys = false;
};

// Fails for what is not JSON, as json.dumps does.
Text to_json(Run& run, const Value& value, const JsonStyle& style);

}  // namespace flexllm::tokenizer::jinja
