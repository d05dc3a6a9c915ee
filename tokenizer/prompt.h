// A rendered prompt that remembers where its text came from. Made by ChatTemplate, read by
// Tokenizer; a plain value.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

namespace flexllm::tokenizer {

struct TextRange {
  size_t begin = 0;  // bytes, half-open
  size_t end = 0;
};

struct Prompt {
  std::string text;                  // UTF-8
  std::vector<TextRange> untrusted;  // ascending, disjoint: what callers wrote, not the template
};

}  // namespace flexllm::tokenizer
