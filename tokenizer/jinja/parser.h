// Makes the syntax tree of a template. A pure function, any thread.
#pragma once

#include <string_view>

#include "tokenizer/chat_template.h"
#include "tokenizer/jinja/ast.h"

namespace flexllm::tokenizer::jinja {

// Throws TemplateError of kind `syntax` for what is not Jinja or outside our subset, of kind
// `limit` when it is nested too deeply.
Body parse(std::string_view source, const TemplateLimits& limits);

}  // namespace flexllm::tokenizer::jinja
