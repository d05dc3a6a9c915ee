// The description of the API against the parser that it describes.
#include <gtest/gtest.h>

#include <regex>
#include <set>

#include "server/api/openapi/document.h"
#include "server/tests/http_harness.h"

namespace flexllm::server::testing {
namespace {

using nlohmann::json;

json description(uint32_t vocab = 300, uint32_t max_choices = 8) {
  return openapi::document({.defaults = {}, .vocab = vocab, .max_choices = max_choices}, true);
}

json schema(const char* name) { return description()["components"]["schemas"][name]; }

void collect_references(const json& value, std::set<std::string>& out) {
  if (value.is_object() && value.contains("$ref")) out.insert(value["$ref"]);
  if (value.is_structured()) {
    for (const auto& item : value) collect_references(item, out);
  }
}

tl::expected<ApiRequest, ApiError> parse(bool chat, const std::string& name, const json& value) {
  json body = chat ? json{{"messages", {{{"role", "user"}, {"content", "x"}}}}, {"logprobs", true}}
                   : json{{"prompt", "x"}, {"echo", true}};
  body[name] = value;
  const RequestLimits limits{.defaults = {}, .vocab = 300, .max_choices = 8};
  const auto parsed = parse_body(body.dump());
  return chat ? parse_chat_request(*parsed, limits) : parse_completion_request(*parsed, limits);
}

TEST(OpenApi, ReferencesAreThere) {
  const json all = description();
  std::set<std::string> references;
  collect_references(all, references);
  EXPECT_GT(references.size(), 15u);
  for (const auto& reference : references) {
    EXPECT_TRUE(all.contains(json::json_pointer(reference.substr(1)))) << reference;
  }
}

TEST(OpenApi, MembersAndTheirBoundsAreThoseOfTheParser) {
  size_t bounds = 0;
  for (const bool chat : {true, false}) {
    const json members = schema(chat ? "ChatRequest" : "CompletionRequest")["properties"];
    for (const auto& [name, member] : members.items()) {
      SCOPED_TRACE(name);
      if (name != "messages" && name != "prompt") {
        const auto null = parse(chat, name, nullptr);
        EXPECT_TRUE(null) << null.error().message;
      }
      for (const auto& [bound, beyond] : {std::pair("minimum", -1), std::pair("maximum", 1)}) {
        if (!member.contains(bound)) continue;
        ++bounds;
        const auto good = parse(chat, name, member[bound]);
        EXPECT_TRUE(good) << good.error().message;
        const json outside = member[bound].is_number_float()
                                 ? json(member[bound].get<double>() + 1e-7 * beyond)
                                 : json(static_cast<double>(member[bound]) * 1.001 + beyond);
        const auto bad = parse(chat, name, outside);
        ASSERT_FALSE(bad) << outside;
        EXPECT_EQ(bad.error().param, name);
      }
    }
  }
  EXPECT_GT(bounds, 50u);
}

TEST(OpenApi, TokenIdsAsNamesAreThoseBelowTheVocabulary) {
  for (const uint32_t vocab : {1u, 7u, 10u, 11u, 100u, 101u, 300u, 1999u, 2001u}) {
    const json all = description(vocab);
    const json bias = all["components"]["schemas"]["ChatRequest"]["properties"]["logit_bias"];
    const std::regex pattern(bias["propertyNames"]["pattern"].get<std::string>());
    for (uint32_t id = 0; id < 12000; ++id) {
      ASSERT_EQ(std::regex_match(std::to_string(id), pattern), id < vocab) << vocab << ": " << id;
    }
    EXPECT_FALSE(std::regex_match("00", pattern));
    EXPECT_FALSE(std::regex_match("-1", pattern));
  }
}

TEST(OpenApi, PromptsTimesNIsBounded) {
  const json rules = schema("CompletionRequest")["allOf"].back()["anyOf"];
  // Up to 8 prompts of 1 choice, 4 of 2, 2 of 4, one of 8.
  std::map<int, int> choices;
  for (const auto& rule : rules) {
    const json& prompt = rule["properties"]["prompt"];
    choices[prompt.contains("maxItems") ? prompt["maxItems"].get<int>() : 1] =
        rule["properties"]["n"]["maximum"];
  }
  EXPECT_EQ(choices, (std::map<int, int>{{1, 8}, {2, 4}, {4, 2}, {8, 1}}));
}

TEST(OpenApi, IsServedWithoutAKeyAndEveryPathOfItIsThere) {
  ServiceOptions options;
  options.api_keys = {"secret"};
  TestServer server({}, options, {}, chatty_model(), /*loaded=*/false);
  Client client(server);
  const json before = client.get("/openapi.json").json();
  EXPECT_EQ(before["components"]["schemas"]["TokenId"]["maximum"], 2147483647);
  server.load();
  const auto reply = client.get("/openapi.json");
  EXPECT_EQ(reply.status, 200);
  const json all = reply.json();
  EXPECT_EQ(all["components"]["schemas"]["TokenId"]["maximum"], 299);
  EXPECT_EQ(all["security"], json::parse(R"([{"key":[]}])"));
  for (const auto& [path, operations] : all["paths"].items()) {
    const std::string target = std::regex_replace(path, std::regex("\\{id\\}"), "fake");
    const std::string key = "Authorization: Bearer secret\r\n";
    const int status = operations.contains("get") ? client.get(target, key).status
                                                  : client.post(target, "{}", key).status;
    EXPECT_EQ(status, operations.contains("get") ? 200 : 400) << path;
  }
}

}  // namespace
}  // namespace flexllm::server::testing
