// TokenizerSources for tests: from the tokenizer.json in a golden file, and a tiny one by hand.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

#include "formats/tokenizer_source.h"

namespace flexllm::tokenizer {

// Of the whole text of a tokenizer.json, with its rules.
inline formats::TokenizerSource source_of(const nlohmann::ordered_json& tokenizer) {
  using formats::TokenType;
  const auto& model = tokenizer.at("model");
  formats::TokenizerSource source;
  source.kind = formats::TokenizerSource::Kind::bpe;
  for (const auto& [text, id] : model.at("vocab").items()) {
    const auto index = id.get<size_t>();
    if (index >= source.tokens.size()) {
      source.tokens.resize(index + 1);
      source.types.resize(index + 1, TokenType::unused);
    }
    source.tokens[index] = text;
    source.types[index] = TokenType::normal;
  }
  for (const auto& merge : model.at("merges")) {
    source.merges.push_back(merge.is_string()
                                ? merge.get<std::string>()
                                : merge[0].get<std::string>() + " " + merge[1].get<std::string>());
  }
  source.byte_fallback = model.at("byte_fallback").get<bool>();
  source.byte_level = !source.byte_fallback;
  source.ignore_merges = model.at("ignore_merges").get<bool>();
  source.tokenizer_json = tokenizer.dump();
  for (const auto& added : tokenizer.at("added_tokens")) {
    source.added_tokens.push_back({.id = added.at("id").get<uint32_t>(),
                                   .text = added.at("content").get<std::string>(),
                                   .special = added.at("special").get<bool>(),
                                   .normalized = added.at("normalized").get<bool>(),
                                   .lstrip = added.at("lstrip").get<bool>(),
                                   .rstrip = added.at("rstrip").get<bool>(),
                                   .single_word = added.at("single_word").get<bool>()});
  }
  return source;
}

// The same vocabulary as a GGUF would state it: a name for the rules, types for the added tokens.
inline formats::TokenizerSource gguf_source_of(const nlohmann::ordered_json& tokenizer,
                                               const std::string& pre_tokenizer) {
  formats::TokenizerSource source = source_of(tokenizer);
  source.tokenizer_json.clear();
  source.pre_tokenizer = pre_tokenizer;
  source.ignore_merges = false;  // GGUF does not say
  for (const auto& added : source.added_tokens) {
    source.types[added.id] =
        added.special ? formats::TokenType::control : formats::TokenType::user_defined;
  }
  return source;
}

}  // namespace flexllm::tokenizer
