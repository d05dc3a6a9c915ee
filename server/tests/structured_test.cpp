// Choices under a grammar while the card fails, is full, or ends them early.
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "server/grammar/grammar_cache.h"
#include "server/tests/harness.h"

namespace flexllm::server::testing {
namespace {

constexpr const char* kSchema =
    R"({"type":"object","required":["name","list"],"properties":{
        "name":{"type":"string","minLength":5,"maxLength":20},
        "list":{"type":"array","items":{"type":"integer"},"maxItems":4}}})";

std::shared_ptr<const grammar::Grammar> grammar_of(const Bench& bench, const char* schema) {
  grammar::GrammarCache cache(
      std::make_shared<const grammar::TokenTrie>(*bench.text, bench.text->vocab_size()));
  return *cache.json_schema(grammar::Json::parse(schema));
}

GenerationRequest structured(const Bench& bench, uint64_t seed) {
  auto request = bench.request("a prompt that takes two chunks", 150);
  request.sampling.temperature = 1;
  request.sampling.seed = seed;
  request.grammar = grammar_of(bench, kSchema);
  return request;
}

TEST(Structured, TheTextIsTheSameAfterAFaultAnywhere) {
  using Kind = host::DeviceError::Kind;
  Bench quiet;
  const auto expected = quiet.run(structured(quiet, 1)).text();
  EXPECT_TRUE(nlohmann::json::accept(expected)) << expected;
  for (const auto& [place, kind] : {std::pair(&FakeCard::fail_start_after, Kind::launch_timeout),
                                    std::pair(&FakeCard::fail_wait_after, Kind::launch_failed),
                                    std::pair(&FakeCard::fail_logits_after, Kind::copy_failed)}) {
    for (int after = 1; after < 40; after += 4) {
      Bench bench;
      bench.card->fault_kind = kind;
      (*bench.card).*place = after;
      const auto outcome = bench.run(structured(bench, 1));
      ASSERT_TRUE(outcome.usage) << outcome.error->message;
      EXPECT_EQ(outcome.text(), expected);
      EXPECT_EQ(outcome.finish[0], FinishReason::stop);
    }
  }
}

TEST(Structured, TheTextIsTheSameWhenTheCardIsFull) {
  FakeModel model = chatty_model();
  model.limits.pages = 24;  // for little more than one of these
  Bench bench(model);
  std::vector<std::unique_ptr<Reader>> readers;
  for (uint64_t seed = 0; seed < 6; ++seed) {
    readers.push_back(bench.submit(structured(bench, seed)));
  }
  for (uint64_t seed = 0; seed < 6; ++seed) {
    Bench quiet;
    const auto& outcome = readers[seed]->read_all();
    EXPECT_EQ(outcome.text(), quiet.run(structured(quiet, seed)).text());
    EXPECT_TRUE(nlohmann::json::accept(outcome.text())) << outcome.text();
  }
  EXPECT_TRUE(bench.all_pages_return());
}

TEST(Structured, ItEndsWithItsLastByteAndNotBefore) {
  Bench bench;
  for (const uint32_t min_tokens : {0u, 3u, 100u}) {
    auto request = bench.request("p", 100);
    request.grammar = grammar_of(bench, R"({"enum":[[1],[2]]})");
    request.min_tokens = min_tokens;
    request.logprobs = 2;
    const auto outcome = bench.run(request);
    EXPECT_TRUE(outcome.text() == "[1]" || outcome.text() == "[2]") << outcome.text();
    EXPECT_EQ(outcome.finish[0], FinishReason::stop);
    EXPECT_EQ(outcome.tokens[0].size(), outcome.usage->completion_tokens);
  }
  auto cut = bench.request("p", 2);
  cut.grammar = grammar_of(bench, R"({"enum":[[1],[2]]})");
  EXPECT_EQ(bench.run(cut).finish[0], FinishReason::length);
  auto exact = bench.request("p", 3);
  exact.grammar = grammar_of(bench, R"({"enum":[[1],[2]]})");
  EXPECT_EQ(bench.run(exact).finish[0], FinishReason::stop);
}

TEST(Structured, AnEndIsChosenOnlyWhereTheTextIsWhole) {
  FakeModel eager = chatty_model();
  eager.bias[FakeText::kEnd] = 500;  // wants to end at once
  Bench bench(eager);
  auto request = bench.request("p", 100);
  request.grammar = grammar_of(bench, R"({"type":"integer","minimum":100})");
  const auto text = bench.run(request).text();
  EXPECT_EQ(text.size(), 3u) << text;
  request.min_tokens = 5;
  EXPECT_EQ(bench.run(request).text().size(), 5u);
  request.min_tokens = 0;
  request.ignore_eos = true;
  EXPECT_EQ(bench.run(request).text().size(), 17u) << "the longest";
}

}  // namespace
}  // namespace flexllm::server::testing
