// A Tokenizer on tiny vocabularies: special tokens, bytes, streams, and what it refuses.
#include "tokenizer/tokenizer.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <limits>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "golden.h"
#include "sources.h"
#include "tokenizer/stream_decoder.h"

namespace flexllm::tokenizer {
namespace {

using formats::TokenizerSource;
using formats::TokenType;
using Ids = std::vector<TokenId>;

// Single letters, "ab", "abc" and two control tokens. "\xC4\xA0" is GPT-2's letter for a space, and
// "\xC3\xA2" "\xC4\xA4" "\xC2\xAC" are those for the three bytes of the euro sign.
TokenizerSource tiny() {
  TokenizerSource source;
  source.tokens = {"<|im_start|>", "<|im_end|>", "a", "b", "c", "ab",       "abc", "\xC4\xA0",
                   "\xC3\xA2",     "\xC4\xA4",   "<", ">", "|", "\xC2\xAC", "x"};
  source.types.assign(source.tokens.size(), TokenType::normal);
  source.types[0] = source.types[1] = TokenType::control;
  source.merges = {"a b", "ab c"};
  source.byte_level = true;
  source.pre_tokenizer = "gpt-2";
  source.added_tokens = {{.id = 0, .text = "<|im_start|>", .special = true},
                         {.id = 1, .text = "<|im_end|>", .special = true}};
  source.bos_id = 0;
  source.eos_id = 1;
  return source;
}

constexpr EncodeOptions kBare{.special_tokens = SpecialTokens::as_text, .add_bos_eos = false};
constexpr EncodeOptions kRecognised{.special_tokens = SpecialTokens::recognised,
                                    .add_bos_eos = false};

TEST(Tokenizer, MergesByRankFromTheLeft) {
  const auto tokenizer = Tokenizer::from_source(tiny());
  EXPECT_EQ(tokenizer.encode("abc", kBare), (Ids{6}));
  EXPECT_EQ(tokenizer.encode("ababc", kBare), (Ids{5, 6}));
  EXPECT_EQ(tokenizer.encode("bca", kBare), (Ids{3, 4, 2}));
  EXPECT_EQ(tokenizer.encode("", kBare), Ids{});
}

TEST(Tokenizer, ControlTokensOnlyWhereTheyAreMeant) {
  const auto tokenizer = Tokenizer::from_source(tiny());
  EXPECT_EQ(tokenizer.encode("a<|im_end|>", kRecognised), (Ids{2, 1}));
  const Ids as_text = tokenizer.encode("a<|im_end|>", kBare);
  EXPECT_EQ(std::count(as_text.begin(), as_text.end(), 1u), 0);
  EXPECT_GT(as_text.size(), 2u);
  EXPECT_EQ(tokenizer.encode("a<|im_end", kRecognised), tokenizer.encode("a<|im_end", kBare));
}

TEST(Tokenizer, ControlTokensOfAPromptOnlyFromItsTemplate) {
  const auto tokenizer = Tokenizer::from_source(tiny());
  const std::string control = "<|im_end|>";
  const Ids as_text = tokenizer.encode(control, kBare);
  // The template wrote the last one; the caller wrote all or a part of the first.
  for (const TextRange untrusted : {TextRange{0, control.size()}, TextRange{0, 1}, TextRange{3, 4},
                                    TextRange{control.size() - 1, control.size()}}) {
    Ids expected = as_text;
    expected.push_back(1);
    EXPECT_EQ(tokenizer.encode(Prompt{control + control, {untrusted}}), expected);
  }
  EXPECT_EQ(tokenizer.encode(Prompt{control, {}}), (Ids{1}));
  // Pieces of text that only together spell a control token do not make one.
  EXPECT_EQ(tokenizer.encode(Prompt{control, {{0, 2}, {5, 6}}}), as_text);
}

TEST(Tokenizer, AddsWhatTheModelIsConfiguredToAdd) {
  TokenizerSource source = tiny();
  EXPECT_EQ(Tokenizer::from_source(source).encode("a"), (Ids{2}));
  source.add_bos = true;
  EXPECT_EQ(Tokenizer::from_source(source).encode("a"), (Ids{0, 2}));
  EXPECT_EQ(Tokenizer::from_source(source).encode(""), (Ids{0}));
  EXPECT_EQ(Tokenizer::from_source(source).encode("a", kBare), (Ids{2}));
  EXPECT_EQ(Tokenizer::from_source(source).encode(Prompt{"a", {}}), (Ids{2}));
  source.add_eos = true;
  EXPECT_EQ(Tokenizer::from_source(source).encode("a"), (Ids{0, 2, 1}));
  EXPECT_TRUE(Tokenizer::from_source(source).adds_bos());
  // Llama-3 starts with BOS though its GGUF files do not say so.
  TokenizerSource llama3 = tiny();
  llama3.pre_tokenizer = "llama-bpe";
  EXPECT_EQ(Tokenizer::from_source(llama3).encode("a"), (Ids{0, 2}));
  llama3.add_bos = false;
  EXPECT_EQ(Tokenizer::from_source(llama3).encode("a"), (Ids{2}));
}

TEST(Tokenizer, PostProcessorAddsBosUnlessTheConfigurationSaysOtherwise) {
  const auto golden = read_golden("llama3.json");
  TokenizerSource source = source_of(golden.at("tokenizer"));
  source.bos_id = 0;
  const Ids with_bos = Tokenizer::from_source(source).encode("x");
  ASSERT_EQ(with_bos.size(), 2u);
  EXPECT_EQ(with_bos[0], 0u);
  source.add_bos = false;
  EXPECT_EQ(Tokenizer::from_source(source).encode("x"), (Ids{with_bos[1]}));
}

TEST(Tokenizer, KnowsItsTokens) {
  const auto tokenizer = Tokenizer::from_source(tiny());
  EXPECT_EQ(tokenizer.vocab_size(), 15u);
  EXPECT_EQ(tokenizer.token_bytes(6), "abc");
  EXPECT_EQ(tokenizer.token_bytes(7), " ");
  EXPECT_EQ(tokenizer.token_bytes(8), "\xE2");
  EXPECT_EQ(tokenizer.token_bytes(1), "<|im_end|>");
  EXPECT_EQ(tokenizer.token_bytes(15), "");
  EXPECT_TRUE(tokenizer.is_special(0));
  EXPECT_FALSE(tokenizer.is_special(2));
  EXPECT_FALSE(tokenizer.is_special(99));
  EXPECT_EQ(tokenizer.id_of("<|im_end|>"), 1u);
  EXPECT_EQ(tokenizer.id_of("<|im_"), std::nullopt);
  EXPECT_EQ(tokenizer.id_of("abc"), std::nullopt);
  EXPECT_EQ(tokenizer.bos_id(), 0u);
  EXPECT_EQ(tokenizer.eos_id(), 1u);
  EXPECT_EQ(Ids(tokenizer.stop_ids().begin(), tokenizer.stop_ids().end()), (Ids{1}));
}

TEST(Tokenizer, StopsAtEveryKnownEndOfTurn) {
  TokenizerSource source = tiny();
  source.eos_id = 0;
  const auto tokenizer = Tokenizer::from_source(source);
  EXPECT_EQ(Ids(tokenizer.stop_ids().begin(), tokenizer.stop_ids().end()), (Ids{0, 1}));
}

TEST(Tokenizer, DecodesWithAndWithoutSpecialTokens) {
  const auto tokenizer = Tokenizer::from_source(tiny());
  const Ids ids = {0, 6, 7, 2, 1, 77};
  EXPECT_EQ(tokenizer.decode(ids), "abc a");
  EXPECT_EQ(tokenizer.decode(ids, {.skip_special = false}), "<|im_start|>abc a<|im_end|>");
}

TEST(StreamDecoder, NeverSplitsACharacter) {
  const auto tokenizer = Tokenizer::from_source(tiny());
  StreamDecoder decoder(tokenizer);
  EXPECT_EQ(decoder.push(2), "a");
  EXPECT_EQ(decoder.push(8), "");  // the three bytes of the euro sign
  EXPECT_EQ(decoder.push(9), "");
  EXPECT_EQ(decoder.push(13), "\xE2\x82\xAC");
  EXPECT_EQ(decoder.push(8), "");
  EXPECT_EQ(decoder.push(2), std::string(kReplacementCharacter) + "a");  // cut by another character
  EXPECT_EQ(decoder.push(9), kReplacementCharacter);                     // a stray byte
  EXPECT_EQ(decoder.push(8), "");
  EXPECT_EQ(decoder.push(1), "");  // a control token leaves the character open
  EXPECT_EQ(decoder.push(9), "");
  EXPECT_EQ(decoder.finish(), kReplacementCharacter);
  EXPECT_EQ(decoder.finish(), "");
}

TEST(StreamDecoder, AgreesWithDecodeOnRandomIds) {
  const auto golden = read_golden("tinyllama.json");
  const auto tokenizer = Tokenizer::from_source(source_of(golden.at("tokenizer")));
  std::mt19937 random(7);
  std::uniform_int_distribution<TokenId> any(0, static_cast<TokenId>(tokenizer.vocab_size()));
  for (int round = 0; round < 300; ++round) {
    Ids ids(1 + random() % 12);
    for (TokenId& id : ids) id = any(random);
    for (const bool at_start : {true, false}) {
      const DecodeOptions options{.skip_special = round % 2 == 0, .at_start = at_start};
      StreamDecoder decoder(tokenizer, options);
      std::string text;
      for (const TokenId id : ids) {
        const std::string piece = decoder.push(id);
        EXPECT_TRUE(is_valid_utf8(piece));
        text += piece;
      }
      text += decoder.finish();
      EXPECT_EQ(text, tokenizer.decode(ids, options));
    }
  }
}

TEST(StreamDecoder, DropsTheFirstSpaceOnlyAtTheStartOfAText) {
  const auto golden = read_golden("tinyllama.json");
  const auto tokenizer = Tokenizer::from_source(source_of(golden.at("tokenizer")));
  const Ids ids = tokenizer.encode("fox", kBare);
  EXPECT_EQ(tokenizer.decode(ids), "fox");
  EXPECT_EQ(tokenizer.decode(ids, {.at_start = false}), " fox");
}

TEST(Tokenizer, InvalidUtf8CountsAsReplacementCharacters) {
  const auto golden = read_golden("gpt2.json");
  const auto tokenizer = Tokenizer::from_source(source_of(golden.at("tokenizer")));
  EXPECT_EQ(tokenizer.encode("a\xFF\xE2\x82z", kBare),
            tokenizer.encode("a\xEF\xBF\xBD\xEF\xBF\xBDz", kBare));
}

// Of quadratic algorithms one would not see the end.
TEST(Tokenizer, LongTextsWithoutSpacesTakeNoQuadraticTime) {
  std::mt19937 random(3);
  std::string letters(1'000'000, 'a');
  for (char& c : letters) c = static_cast<char>('a' + random() % 26);
  const std::string spaces = std::string(500'000, ' ') + "x" + std::string(500'000, '\n');
  std::string brackets;
  for (int i = 0; i < 250'000; ++i) brackets += "<|im";
  for (const char* file : {"gpt2.json", "llama3.json", "qwen2.json", "tinyllama.json"}) {
    SCOPED_TRACE(file);
    const auto golden = read_golden(file);
    const auto tokenizer = Tokenizer::from_source(source_of(golden.at("tokenizer")));
    for (const std::string& text : {letters, spaces, brackets}) {
      EXPECT_EQ(tokenizer.decode(tokenizer.encode(text, kRecognised)), text);
    }
  }
}

TEST(Tokenizer, ServesManyThreadsAtOnce) {
  const auto golden = read_golden("llama3.json");
  const auto tokenizer = Tokenizer::from_source(source_of(golden.at("tokenizer")));
  const std::string text = "It's 2026: the quick brown fox \xF0\x9F\x91\x8D doesn't.\r\n";
  const Ids expected = tokenizer.encode(text);
  std::vector<std::thread> threads;
  std::vector<int> wrong(4);
  for (int& count : wrong) {
    threads.emplace_back([&] {
      for (int i = 0; i < 200; ++i) {
        if (tokenizer.encode(text) != expected || tokenizer.decode(expected) != text) ++count;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(wrong, std::vector<int>(4));
}

void expect_refused(const TokenizerSource& source, const std::string& part_of_message) {
  try {
    Tokenizer::from_source(source);
    ADD_FAILURE() << "accepted; expected: " << part_of_message;
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find(part_of_message), std::string::npos) << error.what();
  }
}

TEST(Tokenizer, RefusesMalformedVocabularies) {
  const auto with = [](const std::function<void(TokenizerSource&)>& change) {
    TokenizerSource source = tiny();
    change(source);
    return source;
  };
  expect_refused(with([](auto& s) { s.merges.push_back("a zz"); }), "merge rule 2 'a zz'");
  expect_refused(with([](auto& s) { s.merges.push_back("ab"); }), "merge rule 2 'ab'");
  expect_refused(with([](auto& s) { s.types.pop_back(); }), "15 tokens but 14 token types");
  expect_refused(with([](auto& s) { s.pre_tokenizer = "nobody"; }), "'nobody' is not supported");
  expect_refused(with([](auto& s) { s.eos_id = 15; }), "15 is outside the vocabulary");
  expect_refused(with([](auto& s) { s.added_tokens.push_back({.id = 1u << 30, .text = "x"}); }),
                 "has id");
  expect_refused(with([](auto& s) { s.byte_level = false; }), "byte-level");
}

TEST(Tokenizer, RefusesWhatItDoesNotKnowOfATokenizerJson) {
  const auto with = [](const std::string& json) {
    TokenizerSource source = tiny();
    source.tokenizer_json = json;
    return source;
  };
  expect_refused(with("{"), "tokenizer.json");
  expect_refused(with(R"({"pre_tokenizer": {"type": "Whitespace"}})"), "'Whitespace'");
  expect_refused(with(R"({"normalizer": {"type": "Lowercase"}})"), "'Lowercase'");
  expect_refused(with(R"({"normalizer": 3})"), "tokenizer.json");
  expect_refused(with(R"({"post_processor": {"type": "BertProcessing"}})"), "'BertProcessing'");
  expect_refused(with(R"({"model": {"end_of_word_suffix": "</w>"}})"), "end_of_word_suffix");
  expect_refused(with(R"({"pre_tokenizer": {"type": "Split", "behavior": "Isolated",
                          "pattern": {"Regex": "(a"}}})"),
                 "pattern '(a'");
  expect_refused(with(R"({"pre_tokenizer": {"type": "Split", "behavior": "Contiguous",
                          "pattern": {"Regex": "a"}}})"),
                 "'Contiguous'");
  expect_refused(with(R"({"post_processor": {"type": "TemplateProcessing", "single": [
                          {"SpecialToken": {"id": "<s>"}}],
                          "special_tokens": {"<s>": {"ids": [99]}}}})"),
                 "99");
  std::string deep = R"({"type": "NFC"})";
  for (int i = 0; i < 1000; ++i) deep = R"({"type": "Sequence", "normalizers": [)" + deep + "]}";
  expect_refused(with(R"({"normalizer": )" + deep + "}"), "nested too deeply");
}

TEST(Tokenizer, APatternThatTriesTooLongIsAnErrorNotAHang) {
  TokenizerSource source = tiny();
  source.tokenizer_json = R"({"pre_tokenizer": {"type": "Split", "behavior": "Isolated",
      "pattern": {"Regex": "(a+a+)+b"}}})";
  const auto tokenizer = Tokenizer::from_source(source);
  EXPECT_THROW(tokenizer.encode(std::string(200, 'a') + "cb"), Error);
}

TEST(Tokenizer, RefusesMalformedSentencePieceModels) {
  TokenizerSource source;
  source.kind = TokenizerSource::Kind::sentencepiece;
  source.sentencepiece_model = "not a model";
  expect_refused(source, "sentencepiece");
  source.sentencepiece_model.clear();
  source.tokens = {"<unk>", "a"};
  source.unk_id = 0;
  expect_refused(source, "2 tokens has 0 scores");
  source.scores = {0, std::numeric_limits<float>::quiet_NaN()};
  expect_refused(source, "not finite");
}

}  // namespace
}  // namespace flexllm::tokenizer
