// Calls of tools in what models write, cut in any way; grammars that make models call.
#include "server/api/tool_calls.h"

#include <gtest/gtest.h>

#include <random>

#include "server/api/tools.h"
#include "server/tests/grammar_text.h"
#include "server/tests/grammar_walk.h"

namespace flexllm::server {
namespace {

struct Case {
  ToolFormat format;
  std::string text;
  std::string content;
  std::vector<std::string> calls;  // name and arguments
  bool parallel = true;
};

std::vector<Case> cases() {
  using enum ToolFormat;
  const std::string one =
      "<tool_call>\n{\"name\": \"f\", \"arguments\": {\"b\": 1, \"a\": [\"</\"]}}\n</tool_call>";
  const std::string two = "<tool_call>{\"name\":\"g\"}</tool_call>";
  const std::string f = "f{\"b\":1,\"a\":[\"</\"]}";
  return {
      {hermes, "only text\n", "only text\n", {}},
      {hermes, one, "", {f}},
      {hermes, "\n" + one + "\n" + two + "\n", "", {f, "g{}"}},
      {hermes, "\n" + one + "\n" + two + "\n", "", {f}, false},
      {hermes,
       "<tool_call>{\"name\":\"f\",\"arguments\":{\"</tool_call>\":1}}</tool_call>",
       "",
       {"f{\"</tool_call>\":1}"}},
      {hermes, "I look. \n" + one, "I look.", {f}},
      {hermes, one + " and then", " and then", {f}},
      {hermes, "a <tool_cal> < <tool", "a <tool_cal> < <tool", {}},
      {hermes,
       "<tool_call>{\"name\":\"h\"}</tool_call>",
       "<tool_call>{\"name\":\"h\"}</tool_call>",
       {}},
      {hermes, "<tool_call>{broken</tool_call>" + one, "<tool_call>{broken</tool_call>", {f}},
      {hermes, "<tool_call>{\"name\":\"f\"", "<tool_call>{\"name\":\"f\"", {}},
      {hermes,
       "<tool_call>{\"name\":\"f\",\"arguments\":[1]}</tool_call>",
       "<tool_call>{\"name\":\"f\",\"arguments\":[1]}</tool_call>",
       {}},
      {llama, R"({"name": "f", "parameters": {"x": 1.0}})", "", {R"(f{"x":1.0})"}},
      {llama,
       R"( {"name": "f", "parameters": {}}; {"name": "g", "parameters": {}})",
       "",
       {"f{}", "g{}"}},
      {llama, R"({"name": "Ann", "age": 3})", R"({"name": "Ann", "age": 3})", {}},
      {llama, "The answer is {\"name\": \"f\"}", "The answer is {\"name\": \"f\"}", {}},
      {llama, "{ not JSON", "{ not JSON", {}},
      {mistral,
       R"([TOOL_CALLS] [{"name": "f", "arguments": {"x": "]"}}, {"name": "g", "arguments": {}}])",
       "",
       {R"(f{"x":"]"})", "g{}"}},
      {mistral, "[TOOL_CALLS] none", "[TOOL_CALLS] none", {}},
      {mistral, "just [TOOL", "just [TOOL", {}},
  };
}

TEST(ToolCallParser, FindsCallsHoweverTheTextIsCut) {
  std::mt19937 random(1);
  for (const auto& c : cases()) {
    for (int cut = 0; cut < 20; ++cut) {
      ToolCallParser parser({c.format, {"f", "g"}, c.parallel});
      std::string content;
      std::vector<std::string> calls;
      for (size_t at = 0; at < c.text.size() || at == 0;) {
        const size_t size = cut == 0 ? c.text.size() : 1 + random() % 7;
        const bool last = at + size >= c.text.size();
        const auto piece = parser.push(std::string_view(c.text).substr(at, size), last);
        content += piece.content;
        for (const auto& call : piece.calls) calls.push_back(call.name + call.arguments);
        at += size;
      }
      EXPECT_EQ(content, c.content) << c.text;
      EXPECT_EQ(calls, c.calls) << c.text;
    }
  }
}

TEST(ToolCallParser, ShowsTextAtOnce) {
  ToolCallParser parser({ToolFormat::hermes, {"f"}, true});
  EXPECT_EQ(parser.push("Hello <", false).content, "Hello");
  EXPECT_EQ(parser.push("b> you ", false).content, " <b> you");
  EXPECT_EQ(parser.push("", true).content, " ");
}

TEST(ToolGrammar, WhatMustBeCalledIsFoundAgain) {
  const testing::GrammarText model;
  grammar::GrammarCache cache(
      std::make_shared<const grammar::TokenTrie>(model, model.vocab_size()));
  Tools tools;
  tools.list = nlohmann::ordered_json::parse(R"([
      {"type":"function","function":{"name":"f","parameters":{"type":"object","required":["x"],
       "properties":{"x":{"type":"integer"},"y":{"$ref":"#/$defs/y"}},"$defs":{"y":{"enum":["</tool_call>"]}}}}},
      {"type":"function","function":{"name":"g"}}])");
  tools.names = {"f", "g"};
  tools.choice = Tools::Choice::required;
  std::mt19937 random(2);
  for (const auto format : {ToolFormat::hermes, ToolFormat::llama, ToolFormat::mistral}) {
    size_t most = 0;
    for (const auto* only : {"", "g", "f"}) {
      for (const bool parallel : {true, false}) {
        tools.only = only;
        tools.parallel = parallel;
        const auto grammar = grammar_of(tools, format, cache);
        ASSERT_TRUE(grammar) << grammar.error().message;
        for (int i = 0; i < 20; ++i) {
          const auto text = testing::random_text(*grammar, model, random);
          ASSERT_TRUE(text);
          ToolCallParser parser({format, tools.names, parallel});
          const auto piece = parser.push(*text, true);
          EXPECT_EQ(piece.content, "") << *text;
          ASSERT_FALSE(piece.calls.empty()) << *text;
          EXPECT_TRUE(parallel || piece.calls.size() == 1);
          most = std::max(most, piece.calls.size());
          for (const auto& call : piece.calls) {
            EXPECT_TRUE(tools.only.empty() || call.name == only);
            const auto arguments = nlohmann::json::parse(call.arguments);
            EXPECT_TRUE(call.name == "g" || arguments.at("x").is_number_integer());
          }
        }
      }
    }
    EXPECT_EQ(most > 1, format != ToolFormat::llama);
  }
  tools.list[0]["function"]["parameters"]["properties"]["x"]["multipleOf"] = 2;
  const auto refused = grammar_of(tools, ToolFormat::hermes, cache);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().param, "tools[0].function.parameters.properties.x.multipleOf");
}

}  // namespace
}  // namespace flexllm::server
