// Ids and texts against the `tokenizers` and `sentencepiece` packages, on difficult texts.
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "golden.h"
#include "sources.h"
#include "tokenizer/stream_decoder.h"
#include "tokenizer/tokenizer.h"

namespace flexllm::tokenizer {
namespace {

using nlohmann::ordered_json;

constexpr EncodeOptions kAsHuggingFace{.special_tokens = SpecialTokens::recognised,
                                       .add_bos_eos = false};

std::vector<std::string> golden_texts() {
  const ordered_json golden = read_golden("texts.json");
  auto texts = golden.at("plain").get<std::vector<std::string>>();
  for (const auto& repeated : golden.at("repeated")) {
    std::string text;
    for (int i = 0; i < repeated.at("count").get<int>(); ++i) {
      text += repeated.at("unit").get<std::string>();
    }
    texts.push_back(text + repeated.at("end").get<std::string>());
  }
  for (const auto& text : golden.at("added")) texts.push_back(text.get<std::string>());
  return texts;
}

// Ids, where a pair [id, count] stands for a run.
std::vector<TokenId> expanded(const ordered_json& runs) {
  std::vector<TokenId> ids;
  for (const auto& run : runs) {
    if (run.is_array()) {
      ids.insert(ids.end(), run[1].get<size_t>(), run[0].get<TokenId>());
    } else {
      ids.push_back(run.get<TokenId>());
    }
  }
  return ids;
}

std::string streamed(const Tokenizer& tokenizer, const std::vector<TokenId>& ids,
                     const DecodeOptions& options) {
  StreamDecoder decoder(tokenizer, options);
  std::string text;
  for (const TokenId id : ids) text += decoder.push(id);
  return text + decoder.finish();
}

void expect_ids(const Tokenizer& tokenizer, const ordered_json& golden,
                const EncodeOptions& options = kAsHuggingFace) {
  const auto texts = golden_texts();
  ASSERT_EQ(golden.at("ids").size(), texts.size());
  for (size_t i = 0; i < texts.size(); ++i) {
    SCOPED_TRACE("text " + std::to_string(i) + ": " + texts[i].substr(0, 60));
    EXPECT_EQ(tokenizer.encode(texts[i], options), expanded(golden.at("ids")[i]));
  }
}

void expect_texts(const Tokenizer& tokenizer, const ordered_json& golden) {
  const auto texts = golden_texts();
  const DecodeOptions options{.skip_special = false};
  for (size_t i = 0; i < texts.size(); ++i) {
    SCOPED_TRACE("text " + std::to_string(i) + ": " + texts[i].substr(0, 60));
    const auto ids = expanded(golden.at("ids")[i]);
    const std::string decoded = tokenizer.decode(ids, options);
    EXPECT_EQ(decoded, golden.at("decoded").value(std::to_string(i), texts[i]));
    EXPECT_EQ(streamed(tokenizer, ids, options), decoded);
  }
}

class HuggingFace : public testing::TestWithParam<const char*> {};

TEST_P(HuggingFace, SameIdsAndTexts) {
  const ordered_json golden = read_golden(std::string(GetParam()) + ".json");
  const Tokenizer tokenizer = Tokenizer::from_source(source_of(golden.at("tokenizer")));
  expect_ids(tokenizer, golden);
  expect_texts(tokenizer, golden);
}

INSTANTIATE_TEST_SUITE_P(Tokenizers, HuggingFace,
                         testing::Values("gpt2", "smollm", "llama3", "qwen2", "tinyllama",
                                         "metaspace", "added"),
                         [](const auto& test) { return std::string(test.param); });

// The same vocabularies by the names that GGUF files use. Qwen2's lacks the normalizer there.
class Gguf : public testing::TestWithParam<std::pair<const char*, const char*>> {};

TEST_P(Gguf, SameIds) {
  const auto [file, name] = GetParam();
  const ordered_json golden = read_golden(std::string(file) + ".json");
  expect_ids(Tokenizer::from_source(gguf_source_of(golden.at("tokenizer"), name)), golden);
}

INSTANTIATE_TEST_SUITE_P(Tokenizers, Gguf,
                         testing::Values(std::pair("gpt2", "gpt-2"), std::pair("smollm", "smollm"),
                                         std::pair("llama3", "llama-bpe")),
                         [](const auto& test) { return std::string(test.param.first); });

TEST(SentencePiece, FromModelBytes) {
  formats::TokenizerSource source;
  source.kind = formats::TokenizerSource::Kind::sentencepiece;
  source.sentencepiece_model = read_test_file("golden/sentencepiece.model");
  const Tokenizer tokenizer = Tokenizer::from_source(source);
  const ordered_json golden = read_golden("sentencepiece.json");
  expect_ids(tokenizer, golden, {.add_bos_eos = false});
  expect_texts(tokenizer, golden);
  EXPECT_EQ(tokenizer.vocab_size(), golden.at("pieces").size());
  EXPECT_EQ(tokenizer.bos_id(), 1u);
  EXPECT_EQ(tokenizer.eos_id(), 2u);
}

TEST(SentencePiece, FromTokensAndScores) {
  const ordered_json golden = read_golden("sentencepiece.json");
  formats::TokenizerSource source;
  source.kind = formats::TokenizerSource::Kind::sentencepiece;
  source.tokens = golden.at("pieces").get<std::vector<std::string>>();
  source.scores = golden.at("scores").get<std::vector<float>>();
  for (const int type : golden.at("types").get<std::vector<int>>()) {
    source.types.push_back(static_cast<formats::TokenType>(type));
  }
  source.bos_id = 1;
  source.eos_id = 2;
  source.unk_id = 0;
  const Tokenizer tokenizer = Tokenizer::from_source(source);
  expect_ids(tokenizer, golden, {.add_bos_eos = false});
  expect_texts(tokenizer, golden);
}

}  // namespace
}  // namespace flexllm::tokenizer
