// Cuts a text into the pre-tokens that BPE merges within. Immutable: any thread may split.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string_view>
#include <vector>

#include "tokenizer/regex.h"

namespace flexllm::tokenizer {

class PreTokenizer {
 public:
  // One step, applied to every piece that the step before it left.
  struct Stage {
    Regex regex;
    enum class Keep {
      matches_and_gaps,  // both what matches and what lies between is a piece
      gaps,              // what matches is dropped
      matches,           // what lies between matches is dropped
    } keep = Keep::matches_and_gaps;
  };

  // The whole text is one piece.
  PreTokenizer() = default;

  // A name as in GGUF's tokenizer.ggml.pre; "" is "gpt-2". Throws Error for one we do not know.
  static PreTokenizer by_name(std::string_view name);

  // `pre_tokenizer` of a tokenizer.json. Throws Error for a type that we do not know.
  static PreTokenizer from_json(const nlohmann::json& json);

  // `text` is valid UTF-8. Pieces are views of it, never empty.
  std::vector<std::string_view> split(std::string_view text) const;

 private:
  void add_json(const nlohmann::json& json, int depth);

  std::vector<Stage> stages_;
};

// Whether a pre-tokenizer's name means a tokenizer of Llama-3's kind, which takes a pre-token that
// is a token as it is and starts every text with BOS unless the file says otherwise. GGUF files say
// neither in so many words.
bool is_llama3_name(std::string_view name);

}  // namespace flexllm::tokenizer
