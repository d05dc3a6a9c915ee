// Finds the tokens that stand in a text as they are, before any splitting: control tokens where
// they are meant, and tokens that a model added to its vocabulary. Immutable: any thread may
// search.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "formats/tokenizer_source.h"
#include "tokenizer/prompt.h"
#include "tokenizer/tokenizer.h"

namespace flexllm::tokenizer {

class AddedTokens {
 public:
  explicit AddedTokens(std::vector<formats::AddedToken> tokens);

  // A stretch of text, or a token that stood there.
  struct Part {
    std::string_view text;
    std::optional<uint32_t> token;
  };

  // Cuts `text`, leftmost and longest matches first. A special token counts only if `special` says
  // so and none of its bytes lies in `untrusted` (ascending, disjoint). Texts of parts are views of
  // `text`, never empty.
  std::vector<Part> split(std::string_view text, SpecialTokens special,
                          std::span<const TextRange> untrusted) const;

  std::optional<uint32_t> find(std::string_view text) const;

 private:
  struct Node {
    std::vector<std::pair<char, uint32_t>> next;  // by byte, ascending
    std::optional<uint32_t> token;                // index in tokens_
  };

  uint32_t child(uint32_t node, char byte) const;  // 0 when there is none
  // The longest token at `position` that may stand there.
  template <typename Allowed>
  const formats::AddedToken* match(std::string_view text, size_t position,
                                   const Allowed& allowed) const;

  std::vector<formats::AddedToken> tokens_;
  std::vector<Node> trie_;  // [0] is the root
};

}  // namespace flexllm::tokenizer
