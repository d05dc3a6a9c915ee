#include "tokenizer/added_tokens.h"

#include <algorithm>

#include "tokenizer/unicode.h"
#include "tokenizer/utf8.h"

namespace flexllm::tokenizer {
namespace {

using formats::AddedToken;

size_t start_of_character_before(std::string_view text, size_t position) {
  do {
    --position;
  } while (position > 0 && (static_cast<unsigned char>(text[position]) & 0xC0) == 0x80);
  return position;
}

bool word_before(std::string_view text, size_t position) {
  if (position == 0) return false;
  size_t at = start_of_character_before(text, position);
  return is_word(read_code_point(text, at));
}

bool word_after(std::string_view text, size_t position) {
  return position < text.size() && is_word(read_code_point(text, position));
}

size_t skip_spaces_before(std::string_view text, size_t position, size_t limit) {
  while (position > limit) {
    const size_t start = start_of_character_before(text, position);
    size_t at = start;
    if (!is_space(read_code_point(text, at))) break;
    position = start;
  }
  return position;
}

size_t skip_spaces_after(std::string_view text, size_t position) {
  while (position < text.size()) {
    size_t at = position;
    if (!is_space(read_code_point(text, at))) break;
    position = at;
  }
  return position;
}

}  // namespace

AddedTokens::AddedTokens(std::vector<AddedToken> tokens) : tokens_(std::move(tokens)), trie_(1) {
  for (uint32_t index = 0; index < tokens_.size(); ++index) {
    if (tokens_[index].text.empty()) continue;
    uint32_t node = 0;
    for (const char byte : tokens_[index].text) {
      uint32_t next = child(node, byte);
      if (next == 0) {
        next = static_cast<uint32_t>(trie_.size());
        auto& edges = trie_[node].next;
        const auto place = std::lower_bound(edges.begin(), edges.end(), std::pair(byte, 0u));
        edges.insert(place, {byte, next});
        trie_.emplace_back();
      }
      node = next;
    }
    if (!trie_[node].token) trie_[node].token = index;
  }
}

uint32_t AddedTokens::child(uint32_t node, char byte) const {
  const auto& edges = trie_[node].next;
  const auto place = std::lower_bound(edges.begin(), edges.end(), std::pair(byte, 0u));
  return place != edges.end() && place->first == byte ? place->second : 0;
}

std::optional<uint32_t> AddedTokens::find(std::string_view text) const {
  uint32_t node = 0;
  for (const char byte : text) {
    node = child(node, byte);
    if (node == 0) return std::nullopt;
  }
  if (!trie_[node].token) return std::nullopt;
  return tokens_[*trie_[node].token].id;
}

template <typename Allowed>
const AddedToken* AddedTokens::match(std::string_view text, size_t position,
                                     const Allowed& allowed) const {
  const AddedToken* longest = nullptr;
  uint32_t node = 0;
  for (size_t end = position; end < text.size();) {
    node = child(node, text[end++]);
    if (node == 0) break;
    if (!trie_[node].token) continue;
    const AddedToken& token = tokens_[*trie_[node].token];
    if (allowed(token, position, end)) longest = &token;
  }
  return longest;
}

std::vector<AddedTokens::Part> AddedTokens::split(std::string_view text, SpecialTokens special,
                                                  std::span<const TextRange> untrusted) const {
  std::vector<Part> parts;
  auto range = untrusted.begin();  // the first that ends after the position looked at
  const auto allowed = [&](const AddedToken& token, size_t begin, size_t end) {
    if (token.single_word && (word_before(text, begin) || word_after(text, end))) return false;
    if (!token.special) return true;
    if (special == SpecialTokens::as_text) return false;
    return range == untrusted.end() || range->begin >= end;
  };
  size_t done = 0;
  size_t position = 0;
  while (position < text.size()) {
    while (range != untrusted.end() && range->end <= position) ++range;
    const AddedToken* token = match(text, position, allowed);
    if (token == nullptr) {
      ++position;
      continue;
    }
    const size_t begin = token->lstrip ? skip_spaces_before(text, position, done) : position;
    const size_t after = position + token->text.size();
    if (begin > done) parts.push_back({text.substr(done, begin - done), std::nullopt});
    done = position = token->rstrip ? skip_spaces_after(text, after) : after;
    parts.push_back({text.substr(begin, done - begin), token->id});
  }
  if (done < text.size()) parts.push_back({text.substr(done), std::nullopt});
  return parts;
}

}  // namespace flexllm::tokenizer
