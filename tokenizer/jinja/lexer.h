// Cuts a template into tokens, as Jinja2 does with trim_blocks and lstrip_blocks: white space
// around blocks is settled here. A pure function, any thread.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

namespace flexllm::tokenizer::jinja {

struct Lexeme {
  enum class Kind {
    data,         // text between tags
    print_begin,  // {{
    print_end,
    block_begin,  // {%
    block_end,
    name,
    string,  // unescaped
    integer,
    floating,
    symbol,  // an operator or bracket
    end,     // of the template
  };
  Kind kind;
  size_t line;  // 1-based
  std::string text;
};

// The last lexeme is `end`. Throws TemplateError of kind `syntax`.
std::vector<Lexeme> lex(std::string_view source);

}  // namespace flexllm::tokenizer::jinja
