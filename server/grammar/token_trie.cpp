#include "server/grammar/token_trie.h"

#include <algorithm>
#include <string_view>

namespace flexllm::server::grammar {
namespace {

constexpr size_t kLongestToken = 1024;  // bytes; longer ones are not used under a grammar

}  // namespace

TokenTrie::TokenTrie(const TextModel& text, uint32_t vocab) : vocab_(vocab) {
  const auto& ends = text.end_tokens();
  std::vector<std::pair<std::string_view, uint32_t>> list;
  for (uint32_t token = 0; token < vocab; ++token) {
    const std::string_view bytes = text.token_bytes(token);
    if (bytes.empty() || bytes.size() > kLongestToken) continue;
    if (std::binary_search(ends.begin(), ends.end(), token)) continue;
    list.emplace_back(bytes, token);
    if (bytes.size() == 1) single_bytes_.set(static_cast<uint8_t>(bytes[0]));
  }
  std::sort(list.begin(), list.end());
  std::vector<uint32_t> open;  // nodes of the path to the last token
  std::string_view last;
  auto close = [&](size_t depth) {
    while (open.size() > depth) {
      nodes_[open.back()].end = static_cast<uint32_t>(nodes_.size());
      open.pop_back();
    }
  };
  for (const auto& [bytes, token] : list) {
    const auto [a, b] = std::mismatch(last.begin(), last.end(), bytes.begin(), bytes.end());
    close(static_cast<size_t>(a - last.begin()));
    for (size_t depth = open.size(); depth < bytes.size(); ++depth) {
      open.push_back(static_cast<uint32_t>(nodes_.size()));
      nodes_.push_back({.end = 0,
                        .first_token = static_cast<uint32_t>(tokens_.size()),
                        .depth = static_cast<uint16_t>(depth + 1),
                        .byte = static_cast<uint8_t>(bytes[depth])});
    }
    tokens_.push_back(token);
    max_depth_ = std::max(max_depth_, static_cast<uint32_t>(bytes.size()));
    last = bytes;
  }
  close(0);
}

}  // namespace flexllm::server::grammar
