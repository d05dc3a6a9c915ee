#include "tokenizer/vocabulary.h"

#include <charconv>
#include <optional>

#include "tokenizer/byte_alphabet.h"
#include "tokenizer/tokenizer.h"

namespace flexllm::tokenizer {
namespace {

using formats::TokenizerSource;
using formats::TokenType;

constexpr size_t kMaxTokens = 1 << 22;

// "<0x0A>" names the byte 0x0A.
std::optional<char> named_byte(std::string_view text) {
  if (text.size() != 6 || !text.starts_with("<0x") || text[5] != '>') return std::nullopt;
  unsigned value = 0;
  const char* end = text.data() + 5;
  const auto [stopped, error] = std::from_chars(text.data() + 3, end, value, 16);
  if (error != std::errc{} || stopped != end) return std::nullopt;
  return static_cast<char>(value);
}

Token token_of(const TokenizerSource& source, uint32_t id) {
  const std::string& stored = source.tokens[id];
  Token token;
  if (!source.types.empty()) token.type = source.types[id];
  if (source.byte_fallback && token.type == TokenType::normal && named_byte(stored)) {
    token.type = TokenType::byte;
  }
  if (id == source.unk_id && token.type == TokenType::normal && !source.byte_level) {
    token.type = TokenType::unknown;
  }
  switch (token.type) {
    case TokenType::control:
    case TokenType::unknown:
      token.special = true;
      token.bytes = stored;
      break;
    case TokenType::byte: {
      const auto byte = named_byte(stored);
      if (!byte) throw Error("token " + std::to_string(id) + " is a byte but not named <0xNN>");
      token.bytes.assign(1, *byte);
      break;
    }
    case TokenType::unused:
      break;
    case TokenType::normal:
    case TokenType::user_defined:
      token.bytes =
          source.byte_level ? bytes_of_printable(stored).value_or(stored) : with_spaces(stored);
      break;
  }
  return token;
}

}  // namespace

std::string with_spaces(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  while (!text.empty()) {
    if (text.starts_with(kMetaspace)) {
      out += ' ';
      text.remove_prefix(kMetaspace.size());
    } else {
      out += text.front();
      text.remove_prefix(1);
    }
  }
  return out;
}

std::vector<Token> read_vocabulary(const TokenizerSource& source) {
  const size_t count = source.tokens.size();
  if (count > kMaxTokens) throw Error("the vocabulary has more than 4 Mi tokens");
  if (!source.types.empty() && source.types.size() != count) {
    throw Error("the vocabulary has " + std::to_string(count) + " tokens but " +
                std::to_string(source.types.size()) + " token types");
  }
  std::vector<Token> tokens;
  tokens.reserve(count);
  for (uint32_t id = 0; id < count; ++id) tokens.push_back(token_of(source, id));
  for (const formats::AddedToken& added : source.added_tokens) {
    if (added.id >= kMaxTokens) {
      throw Error("added token '" + added.text + "' has id " + std::to_string(added.id));
    }
    if (added.id >= tokens.size()) {
      tokens.resize(added.id + 1, Token{.bytes = {}, .type = TokenType::unused, .special = false});
    }
    Token& token = tokens[added.id];
    token.special = token.special || added.special;
    if (token.type == TokenType::normal || token.type == TokenType::unused) {
      token.type = added.special ? TokenType::control : TokenType::user_defined;
    }
    if (source.kind == TokenizerSource::Kind::bpe) token.bytes = added.text;
    if (token.bytes.empty()) token.bytes = added.text;
  }
  return tokens;
}

}  // namespace flexllm::tokenizer
