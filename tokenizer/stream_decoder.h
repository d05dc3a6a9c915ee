// Turns ids into text while they are generated. One per sequence, owned by whoever streams it; not
// thread-safe. The pieces put together are exactly Tokenizer::decode() of all the ids.
#pragma once

#include <string>

#include "tokenizer/tokenizer.h"
#include "tokenizer/utf8.h"

namespace flexllm::tokenizer {

class StreamDecoder {
 public:
  // `tokenizer` must outlive the decoder.
  explicit StreamDecoder(const Tokenizer& tokenizer, const DecodeOptions& options = {})
      : tokenizer_(&tokenizer), options_(options) {}

  // The text that this token completes, maybe none: never a part of a character. Bytes that cannot
  // be part of any character come out as U+FFFD.
  std::string push(TokenId id);

  // The end of the sequence: U+FFFD if a character was left incomplete, otherwise nothing. The
  // decoder then stands at its beginning again.
  std::string finish();

 private:
  const Tokenizer* tokenizer_;
  DecodeOptions options_;
  Utf8Assembler assembler_;
  bool started_ = false;  // some text has been seen
};

}  // namespace flexllm::tokenizer
