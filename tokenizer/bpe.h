// Byte-pair encoding by ranked merges: within each pre-token the pair with the lowest rank is
// joined first, the leftmost of equals (Sennrich et al., arXiv 1508.07909), until no rule applies.
// With a priority queue this takes O(n log n) for a pre-token of n bytes. Immutable: any thread may
// encode.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "formats/tokenizer_source.h"
#include "tokenizer/merge_table.h"
#include "tokenizer/normalizer.h"
#include "tokenizer/pretokenizer.h"
#include "tokenizer/subword_model.h"
#include "tokenizer/vocabulary.h"

namespace flexllm::tokenizer {

class BpeModel final : public SubwordModel {
 public:
  // What a tokenizer.json or a GGUF's names say besides tokens and merges.
  struct Rules {
    Normalizer normalizer;
    PreTokenizer pre_tokenizer;
    std::optional<uint32_t> unknown;  // stands for what has no token; without it that is dropped
    bool fuse_unknown = false;        // one `unknown` for a run of such characters
    bool ignore_merges = false;       // a pre-token that is a token is not taken apart
  };

  // `vocabulary` is that of `source`. Throws Error for merges of tokens that do not exist.
  BpeModel(const formats::TokenizerSource& source, const std::vector<Token>& vocabulary,
           Rules rules);

  void encode(std::string_view text, bool at_text_start, std::vector<uint32_t>& ids) const override;

 private:
  class Merger;

  void add_merge(uint32_t rank, std::string_view rule);
  void append_symbols(std::string_view piece, Merger& merger) const;
  void encode_by_merges(std::string_view piece, Merger& merger, std::vector<uint32_t>& ids) const;

  Rules rules_;
  bool byte_level_;
  std::vector<std::string> keys_;  // by id: what a token looks like in a normalized text
  std::unordered_map<std::string_view, uint32_t> ids_;     // of keys_, without special tokens
  std::unordered_map<std::string_view, uint32_t> direct_;  // pre-tokens that become one token
  std::array<std::optional<uint32_t>, 256> byte_ids_{};
  bool all_bytes_ = false;  // byte fallback has every byte
  MergeTable merges_;
};

}  // namespace flexllm::tokenizer
