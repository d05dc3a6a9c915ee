// The functions that every template finds: Jinja's range, dict and namespace, and raise_exception
// and strftime_now of the transformers package. Constant, any thread.
#pragma once

#include <ctime>

#include "tokenizer/jinja/evaluator.h"

namespace flexllm::tokenizer::jinja {

// `now` is the time that strftime_now tells.
void set_globals(Evaluator& evaluator, const std::tm& now);

}  // namespace flexllm::tokenizer::jinja
