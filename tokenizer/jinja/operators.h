// Python's operators on values. What Python refuses with TypeError fails the rendering.
#pragma once

#include "tokenizer/jinja/ast.h"
#include "tokenizer/jinja/run.h"

namespace flexllm::tokenizer::jinja {

Value arithmetic(Run& run, Binary::Op op, const Value& left, const Value& right);
Value negative(Run& run, const Value& operand);
bool equal(Run& run, const Value& left, const Value& right);
bool less(Run& run, const Value& left, const Value& right);
bool compare(Run& run, Compare::Op op, const Value& left, const Value& right);

}  // namespace flexllm::tokenizer::jinja
