// What a tokenizer.json says about a text's way to BPE and about what frames it; its vocabulary and
// merges are in the TokenizerSource already.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "tokenizer/bpe.h"

namespace flexllm::tokenizer {

struct TokenizerJson {
  Normalizer normalizer;
  PreTokenizer pre_tokenizer;
  std::optional<std::string> unknown;  // text of the token, as stored
  bool fuse_unknown = false;
  // Tokens that the post-processor puts around a text; absent when there is no post-processor.
  std::optional<std::vector<uint32_t>> before;
  std::optional<std::vector<uint32_t>> after;
};

// Throws Error, which names the part, for what is malformed or not supported.
TokenizerJson read_tokenizer_json(const std::string& text);

}  // namespace flexllm::tokenizer
