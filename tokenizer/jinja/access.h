// What `.`, `[]` and `[a:b:c]` find in a value, with Jinja's rules: a dot looks for methods first,
// brackets for elements first. Nothing of what is found can change anything.
#pragma once

#include <optional>
#include <string_view>

#include "tokenizer/jinja/run.h"

namespace flexllm::tokenizer::jinja {

Value get_attribute(Run& run, const Value& object, const std::string& name);
Value get_item(Run& run, const Value& object, const Value& index);

struct SliceBounds {
  std::optional<int64_t> start;
  std::optional<int64_t> stop;
  std::optional<int64_t> step;
};
Value get_slice(Run& run, const Value& object, const SliceBounds& bounds);

// A path such as "function.name" or "0.id", as filters take it.
Value get_path(Run& run, const Value& object, const Value& path);

// The method `name` of a string, list or dict; nothing when there is none.
std::optional<Value> find_method(Run& run, const Value& object, std::string_view name);

}  // namespace flexllm::tokenizer::jinja
