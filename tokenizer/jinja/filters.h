// Jinja's filters, `x | NAME(...)`, and those that the transformers package adds. Constant tables,
// any thread.
#pragma once

#include <span>
#include <string_view>

#include "tokenizer/jinja/run.h"

namespace flexllm::tokenizer::jinja {

struct Filter {
  std::string_view name;
  Value (*apply)(Run&, const Value&, const Arguments&);
  std::string_view parameters;  // names in order, separated by spaces; "*": whatever is given
};

// nullptr when there is none of that name.
const Filter* find_filter(std::string_view name);

// Fails when it is given arguments that it does not take.
Value apply_filter(Run& run, const Filter& filter, const Value& input, const Arguments& arguments);

std::span<const Filter> text_filters();      // about strings and numbers
std::span<const Filter> sequence_filters();  // about lists and dicts

}  // namespace flexllm::tokenizer::jinja
