// Grammars from the inside: masks against single bytes, memory that is given up, vocabularies with
// holes, regular expressions against the standard library's. What schemas mean: test_grammar.py.
#include "server/grammar/grammar.h"

#include <gtest/gtest.h>

#include <atomic>
#include <random>
#include <regex>
#include <thread>

#include "server/grammar/grammar_cache.h"
#include "server/grammar/regex.h"
#include "server/tests/grammar_text.h"
#include "server/tests/grammar_walk.h"

namespace flexllm::server::grammar {
namespace {

using testing::GrammarText;

constexpr const char* kPerson =
    R"({"type":"object","required":["name","tags"],"properties":{
        "name":{"type":"string","maxLength":9},"age":{"type":"integer","minimum":0,"maximum":150},
        "when":{"format":"date"},"tags":{"type":"array","items":{"enum":["ab","abc",null,12]}},
        "child":{"anyOf":[{"$ref":"#"},{"type":"null"}]}}})";

std::shared_ptr<const Grammar> grammar_of(const char* schema, const TextModel& model) {
  GrammarCache cache(std::make_shared<const TokenTrie>(model, model.vocab_size()));
  auto made = cache.json_schema(Json::parse(schema));
  EXPECT_TRUE(made) << made.error().message;
  return *made;
}

// With limits of its own, which a cache does not give.
std::shared_ptr<const Grammar> object_grammar(const TextModel& model, const GrammarLimits& limits) {
  ProgramBuilder builder;
  JsonText text(builder);
  const Address start = builder.call(text.object(), builder.accept());
  return std::make_shared<const Grammar>(
      *builder.finish(start, ByteSet().set()),
      std::make_shared<const TokenTrie>(model, model.vocab_size()), limits);
}

TEST(Grammar, AMaskHoldsTheTokensWhoseBytesAreTaken) {
  const GrammarText model;
  std::mt19937 random(3);
  for (const char* schema : {kPerson, R"({"type":["string","number","null"]})", "{}"}) {
    const auto grammar = grammar_of(schema, model);
    for (int walk = 0; walk < 5; ++walk) {
      Matcher matcher(grammar);
      for (int step = 0; step < 30 && !matcher.finished(); ++step) {
        const auto allowed = matcher.allowed();
        std::vector<uint32_t> tokens;
        for (uint32_t token = 0; token < model.vocab_size(); ++token) {
          const bool is_text = !model.token_bytes(token).empty() && token != model.end_tokens()[0];
          Matcher copy = matcher;
          const bool taken = is_text && copy.accept(model.token_bytes(token));
          ASSERT_EQ(allowed->contains(token), taken) << schema << ": " << model.token_name(token);
          if (taken) tokens.push_back(token);
        }
        ASSERT_EQ(allowed->count, tokens.size());
        ASSERT_FALSE(tokens.empty());
        ASSERT_TRUE(matcher.accept(model.token_bytes(tokens[random() % tokens.size()])));
      }
    }
  }
}

TEST(Grammar, ALargeVocabularyIsLookedAtWhole) {
  std::vector<std::string> words;
  for (int i = 0; i < 130000; ++i) words.push_back("w" + std::to_string(i) + "x");
  const GrammarText model({}, words);
  for (const char* schema : {R"({"type":"string"})", R"({"type":"string","maxLength":50})"}) {
    Matcher matcher(grammar_of(schema, model));
    ASSERT_TRUE(matcher.accept("\"a"));
    EXPECT_GT(matcher.allowed()->count, 130000u);
  }
}

TEST(Grammar, EndsWhereTheTextIsWhole) {
  const GrammarText model;
  Matcher object(grammar_of(R"({"properties":{"a":{"type":"null"}}})", model));
  EXPECT_FALSE(object.may_end());
  EXPECT_TRUE(object.accept("{\"a\":null"));
  EXPECT_FALSE(object.may_end());
  EXPECT_TRUE(object.accept("}"));
  EXPECT_TRUE(object.may_end() && object.finished());
  EXPECT_EQ(object.allowed()->count, 0u);
  EXPECT_FALSE(object.accept("}"));
  EXPECT_FALSE(object.may_end());

  Matcher number(grammar_of(R"({"type":"integer"})", model));
  EXPECT_TRUE(number.accept("12"));
  EXPECT_TRUE(number.may_end());
  EXPECT_FALSE(number.finished());
}

TEST(Grammar, ATextGoesOnWhenWhatWasFoundIsGivenUp) {
  const GrammarText model;
  const auto roomy = object_grammar(model, {});
  const auto tight = object_grammar(model, {.automaton_bytes = 0, .mask_bytes = 0});
  std::mt19937 random(5);
  const std::string text = *testing::random_text(roomy, model, random);
  Matcher a(roomy);
  Matcher b(tight);
  Matcher other(tight);
  const std::string fixed = R"({"a":[{"b":[1,2,{"c":"\u00e9"}]}, true] ,"d": {"e":{}}})";
  for (const char c : fixed) {
    const auto wide = a.allowed();
    const auto narrow = b.allowed();
    ASSERT_EQ(wide->words, narrow->words);
    ASSERT_TRUE(a.accept({&c, 1}));
    ASSERT_TRUE(b.accept({&c, 1}));
    other.allowed();
  }
  EXPECT_TRUE(a.finished() && b.finished());
  Matcher c(tight);
  EXPECT_TRUE(c.accept(text));
  EXPECT_TRUE(c.finished());
}

TEST(Grammar, WhatTheVocabularyCannotWriteIsLeftOut) {
  const GrammarText model("\xE2\x82\xAC\x01");  // no euro sign, byte by byte
  GrammarCache cache(std::make_shared<const TokenTrie>(model, model.vocab_size()));
  EXPECT_FALSE(cache.json_schema(Json::parse(R"({"const":"€"})")));
  const auto either = cache.json_schema(Json::parse(R"({"enum":["€","e"]})"));
  ASSERT_TRUE(either);
  std::mt19937 random(7);
  for (int i = 0; i < 10; ++i) EXPECT_EQ(*testing::random_text(*either, model, random), "\"e\"");
  const auto any = cache.json_schema(Json::parse(R"({"type":"string"})"));
  ASSERT_TRUE(any);
  for (int i = 0; i < 50; ++i) EXPECT_TRUE(testing::random_text(*any, model, random));
}

TEST(Grammar, ManyWaysAtOnceAreBounded) {
  // Each level doubles the ways in which a text can be read.
  const char* schema =
      R"({"$defs":{"n":{"anyOf":[
          {"type":"object","properties":{"a":{"$ref":"#/$defs/n"}},"required":["a"]},
          {"type":"object","properties":{"a":{"$ref":"#/$defs/n"},"b":{"type":"null"}},
           "required":["a"]},{"type":"null"}]}},"$ref":"#/$defs/n"})";
  const GrammarText model;
  Matcher matcher(grammar_of(schema, model));
  for (int level = 0; level < 40; ++level) {
    ASSERT_GT(matcher.allowed()->count, 0u);
    ASSERT_TRUE(matcher.accept("{\"a\":"));
  }
  ASSERT_TRUE(matcher.accept("null" + std::string(40, '}')));
  EXPECT_TRUE(matcher.finished());
}

TEST(Grammar, IsSharedByThreads) {
  const GrammarText model;
  GrammarCache cache(std::make_shared<const TokenTrie>(model, model.vocab_size()));
  std::vector<std::thread> threads;
  std::atomic<int> whole{0};
  for (uint32_t t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      std::mt19937 random(t);
      for (int i = 0; i < 5; ++i) {
        const auto grammar = i % 2 ? cache.json_object() : cache.json_schema(Json::parse(kPerson));
        whole += testing::random_text(*grammar, model, random).has_value();
      }
    });
  }
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(whole, 20);
}

TEST(GrammarCache, KeepsTheLastOnes) {
  const GrammarText model;
  GrammarCache cache(std::make_shared<const TokenTrie>(model, model.vocab_size()));
  auto get = [&](int i) { return *cache.json_schema({{"const", i}}); };
  const auto first = get(0);
  const auto second = get(1);
  for (int i = 2; i < 16; ++i) get(i);
  EXPECT_EQ(get(0), first);
  get(16);
  EXPECT_EQ(get(0), first);
  EXPECT_NE(get(1), second) << "the one that was not used for longest is gone";
  EXPECT_NE(*cache.json_schema(Json::parse(R"({"properties":{"a":true,"b":true}})")),
            *cache.json_schema(Json::parse(R"({"properties":{"b":true,"a":true}})")));
}

std::string random_pattern(std::mt19937& random, int depth) {
  constexpr const char* kAtoms[] = {"a",      "b",      "c",      ".",   "[ab]",    "[^a]",
                                    "[a-b1]", "\\d",    "\\w",    "\\s", "\\S",     "\\.",
                                    "\\x61",  "[\\d.]", "[^\\w]", "1",   "\\u0062", "[-a]"};
  std::string out;
  for (auto i = random() % 4; i-- > 0;) {
    if (depth < 3 && random() % 4 == 0) {
      out += (random() % 2 ? "(" : "(?:") + random_pattern(random, depth + 1) + ")";
    } else {
      out += kAtoms[random() % std::size(kAtoms)];
    }
    constexpr const char* kRepeats[] = {"*", "+", "?", "{2}", "{1,3}", "{2,}", "*?"};
    if (random() % 3 == 0) out += kRepeats[random() % std::size(kRepeats)];
  }
  if (random() % 4 == 0) out += "|" + random_pattern(random, depth + 1);
  return out;
}

TEST(Regex, FindsWhatTheStandardLibraryFinds) {
  std::mt19937 random(13);
  int found = 0, tried = 0;
  for (int i = 0; i < 400; ++i) {
    std::string pattern = random_pattern(random, 0);
    const bool begins = random() % 3 == 0;
    const bool ends = random() % 3 == 0;
    if (begins || ends) pattern = "(?:" + pattern + ")";
    pattern = (begins ? "^" : "") + pattern + (ends ? "$" : "");
    const std::regex standard(pattern);
    Effort effort;
    const CharDfa dfa = compile_regex(pattern, Match::somewhere, effort);
    Effort more;
    const CharDfa whole = compile_regex(pattern, Match::whole, more);
    for (int j = 0; j < 40; ++j) {
      std::string text;
      for (auto n = random() % 7; n-- > 0;) text += "aabbc1. -"[random() % 9];
      const std::u32string wide(text.begin(), text.end());
      const bool expected = std::regex_search(text, standard);
      ASSERT_EQ(dfa.accepts(wide), expected) << pattern << " in '" << text << "'";
      ASSERT_EQ(whole.accepts(wide), std::regex_match(text, standard)) << pattern << " is " << text;
      found += expected;
      ++tried;
    }
  }
  EXPECT_GT(found, tried / 10);
  EXPECT_LT(found, tried);
}

}  // namespace
}  // namespace flexllm::server::grammar
