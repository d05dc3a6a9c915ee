// A compiled Unicode pattern (PCRE2, JIT where the machine has it), with the meaning of classes
// that the `tokenizers` package gives them. Immutable: any thread may search at any time.
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>

namespace flexllm::tokenizer {

class Regex {
 public:
  // Throws Error for a pattern that does not compile or is longer than 64 KiB.
  explicit Regex(std::string_view pattern);

  struct Match {
    size_t begin;
    size_t end;
  };

  // One pass over a text. Not thread-safe; make one per call.
  class Search {
   public:
    // `text` is valid UTF-8 and outlives the search.
    Search(const Regex& regex, std::string_view text);
    ~Search();
    Search(const Search&) = delete;
    Search& operator=(const Search&) = delete;

    // The next match that is not empty, left to right; false when there is none. Throws Error when
    // the pattern exceeds its match limit.
    bool next(Match& match);

   private:
    struct State;
    std::unique_ptr<State> state_;
  };

 private:
  struct Code;
  std::shared_ptr<const Code> code_;
};

}  // namespace flexllm::tokenizer
