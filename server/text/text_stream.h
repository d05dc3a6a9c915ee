// From token bytes to text that may be shown: whole UTF-8 characters only, nothing of a stop
// string. One per choice of a request; used by the scheduler's thread. The text that comes out does
// not depend on where the token boundaries lie.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

#include "tokenizer/utf8.h"

namespace flexllm::server {

// Code points in valid UTF-8.
size_t characters(std::string_view utf8);

class TextStream {
 public:
  // Empty stop strings are not allowed.
  explicit TextStream(std::vector<std::string> stop = {});

  // Adds the bytes of one token and returns the text that may now be shown. While `match` is false
  // stop strings are not looked for. After stopped() nothing is ever returned.
  std::string append(std::string_view token_bytes, bool match = true);
  // The end of generation: returns what was held back.
  std::string finish();

  // True once a stop string is complete. It and what follows are never shown. Of several the one
  // that completes first counts, and of those that complete together the longest.
  bool stopped() const { return stopped_; }
  // Characters of text known so far: shown or held back, without the stop string.
  size_t known_characters() const { return shown_ + characters(held_); }
  // Characters of text shown so far.
  size_t shown_characters() const { return shown_; }

 private:
  std::string take(size_t count);
  size_t hold_size() const;

  std::vector<std::string> stop_;
  size_t longest_ = 0;
  tokenizer::Utf8Assembler utf8_;
  std::string held_;  // could still become the beginning of a stop string
  size_t shown_ = 0;
  bool stopped_ = false;
};

}  // namespace flexllm::server
