// Jinja's tests, `x is NAME`. Constant tables, any thread.
#pragma once

#include <string_view>

#include "tokenizer/jinja/run.h"

namespace flexllm::tokenizer::jinja {

struct Test {
  std::string_view name;
  bool (*holds)(Run&, const Value&, const Arguments&);
  size_t parameters;  // it takes exactly so many arguments
};

// nullptr when there is none of that name.
const Test* find_test(std::string_view name);

// Fails when the number of arguments is wrong.
bool run_test(Run& run, const Test& test, const Value& value, const Arguments& arguments);

}  // namespace flexllm::tokenizer::jinja
