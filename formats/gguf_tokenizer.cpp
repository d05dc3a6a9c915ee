#include "formats/gguf_tokenizer.h"

#include <algorithm>
#include <string>
#include <utility>

#include "formats/error.h"

namespace flexllm::formats {
namespace {

constexpr std::string_view kTokens = "tokenizer.ggml.tokens";
constexpr std::string_view kTypes = "tokenizer.ggml.token_type";
constexpr std::string_view kScores = "tokenizer.ggml.scores";
constexpr std::string_view kMerges = "tokenizer.ggml.merges";

[[noreturn]] void fail(const GgufFile& file, std::string_view key, std::string_view what) {
  throw Error(file.path(), "key '" + std::string(key) + "'", what);
}

std::optional<uint32_t> read_id(const GgufFile& file, std::string_view key, uint32_t vocab) {
  const auto id = file.find_uint(key);
  if (!id) return std::nullopt;
  if (*id >= vocab) {
    fail(file, key,
         "token " + std::to_string(*id) + " is beyond the vocabulary of " + std::to_string(vocab));
  }
  return static_cast<uint32_t>(*id);
}

void read_types(const GgufFile& file, TokenizerSource& source) {
  const std::vector<int32_t> types = file.integers(kTypes);
  if (!types.empty() && types.size() != source.tokens.size()) {
    fail(file, kTypes, "expected one type for each token");
  }
  for (size_t i = 0; i < types.size(); ++i) {
    if (types[i] < 1 || types[i] > 6) {
      fail(file, kTypes, "token " + std::to_string(i) + ": expected a type from 1 to 6");
    }
    const auto type = static_cast<TokenType>(types[i]);
    source.types.push_back(type);
    if (type == TokenType::control || type == TokenType::user_defined) {
      AddedToken token;
      token.id = static_cast<uint32_t>(i);
      token.text = source.tokens[i];
      token.special = type == TokenType::control;
      source.added_tokens.push_back(std::move(token));
    }
  }
}

void read_templates(const GgufFile& file, TokenizerSource& source) {
  constexpr std::string_view kTemplate = "tokenizer.chat_template";
  if (const auto text = file.find_string(kTemplate)) {
    source.chat_templates.push_back({"default", std::string(*text)});
  }
  file.for_each_string("tokenizer.chat_templates", [&](std::string_view name) {
    const std::string key = std::string(kTemplate) + "." + std::string(name);
    const auto text = file.find_string(key);
    if (!text) fail(file, key, "it is missing, though 'tokenizer.chat_templates' names it");
    source.chat_templates.push_back({std::string(name), std::string(*text)});
  });
}

}  // namespace

TokenizerSource read_gguf_tokenizer(const GgufFile& file, uint32_t vocab) {
  TokenizerSource source;
  const auto model = file.find_string("tokenizer.ggml.model");
  if (!model) fail(file, "tokenizer.ggml.model", "it is missing");
  if (*model == "gpt2") {
    source.kind = TokenizerSource::Kind::bpe;
    source.byte_level = true;
  } else if (*model == "llama") {
    source.kind = TokenizerSource::Kind::sentencepiece;
    source.byte_fallback = true;
  } else {
    fail(file, "tokenizer.ggml.model",
         "tokenizer '" + std::string(*model) + "' is not supported; expected gpt2 or llama");
  }
  if (!file.for_each_string(kTokens,
                            [&](std::string_view token) { source.tokens.emplace_back(token); })) {
    fail(file, kTokens, "it is missing");
  }
  if (source.tokens.size() > vocab) {
    fail(file, kTokens,
         std::to_string(source.tokens.size()) + " tokens, but the embedding has " +
             std::to_string(vocab) + " rows");
  }
  read_types(file, source);
  if (source.kind == TokenizerSource::Kind::bpe) {
    source.pre_tokenizer = file.find_string("tokenizer.ggml.pre").value_or("default");
    source.ignore_merges = source.pre_tokenizer == "llama-bpe" ||
                           source.pre_tokenizer == "llama3" || source.pre_tokenizer == "llama-v3";
    if (!file.for_each_string(kMerges,
                              [&](std::string_view merge) { source.merges.emplace_back(merge); })) {
      fail(file, kMerges, "it is missing");
    }
  } else {
    source.scores = file.floats(kScores);
    if (source.scores.size() != source.tokens.size()) {
      fail(file, kScores, "expected one score for each token");
    }
  }
  source.bos_id = read_id(file, "tokenizer.ggml.bos_token_id", vocab);
  source.eos_id = read_id(file, "tokenizer.ggml.eos_token_id", vocab);
  source.unk_id = read_id(file, "tokenizer.ggml.unknown_token_id", vocab);
  source.pad_id = read_id(file, "tokenizer.ggml.padding_token_id", vocab);
  source.add_bos = file.find_bool("tokenizer.ggml.add_bos_token");
  source.add_eos = file.find_bool("tokenizer.ggml.add_eos_token");
  source.add_space_prefix = file.find_bool("tokenizer.ggml.add_space_prefix");
  read_templates(file, source);
  return source;
}

std::vector<uint32_t> read_gguf_eos_ids(const GgufFile& file, uint32_t vocab) {
  std::vector<uint32_t> ids;
  for (const std::string_view key : {"tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id",
                                     "tokenizer.ggml.eom_token_id"}) {
    const auto id = read_id(file, key, vocab);
    if (id && std::ranges::find(ids, *id) == ids.end()) ids.push_back(*id);
  }
  return ids;
}

}  // namespace flexllm::formats
