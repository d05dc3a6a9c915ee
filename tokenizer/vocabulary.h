// The tokens of a model by id: what each stands for in bytes, and what kind of token it is.
#pragma once

#include <string>
#include <vector>

#include "formats/tokenizer_source.h"

namespace flexllm::tokenizer {

struct Token {
  std::string bytes;  // of a control token, its name
  formats::TokenType type = formats::TokenType::normal;
  bool special = false;  // control, unknown, or declared special
};

// The space of SentencePiece, U+2581.
inline constexpr std::string_view kMetaspace = "\xE2\x96\x81";

// `text` with every U+2581 as a space.
std::string with_spaces(std::string_view text);

// All tokens of `source`, added ones included. Throws Error for ids or sizes that do not fit
// together.
std::vector<Token> read_vocabulary(const formats::TokenizerSource& source);

}  // namespace flexllm::tokenizer
