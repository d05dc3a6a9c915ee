// The tokens of a vocabulary as a tree of their bytes, so that what tokens share is looked at once.
// Immutable; any thread may use it.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "server/grammar/program.h"
#include "server/text/text_model.h"

namespace flexllm::server::grammar {

class TokenTrie {
 public:
  struct Node {
    uint32_t end = 0;          // index of the first node that is not below it
    uint32_t first_token = 0;  // tokens()[first_token .. next node's first_token) end here
    uint16_t depth = 0;        // bytes of the text that it stands for, at least 1
    uint8_t byte = 0;          // the last of them
  };

  // Of the tokens below `vocab` that stand for text: control tokens and those that end an answer
  // are none.
  TokenTrie(const TextModel& text, uint32_t vocab);

  // Parents before children, children by byte.
  const std::vector<Node>& nodes() const { return nodes_; }
  std::span<const uint32_t> tokens_at(size_t node) const {
    const size_t end = node + 1 < nodes_.size() ? nodes_[node + 1].first_token : tokens_.size();
    return {tokens_.data() + nodes_[node].first_token, end - nodes_[node].first_token};
  }
  uint32_t max_depth() const { return max_depth_; }
  uint32_t vocab() const { return vocab_; }
  // Bytes that are a token by themselves: what is made of these never lacks a token.
  const ByteSet& single_bytes() const { return single_bytes_; }

 private:
  std::vector<Node> nodes_;
  std::vector<uint32_t> tokens_;
  uint32_t max_depth_ = 0;
  uint32_t vocab_ = 0;
  ByteSet single_bytes_;
};

}  // namespace flexllm::server::grammar
