// Each field of the two bodies: its good values, its bad ones, and the name in the error.
#include "server/api/openai_request.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "server/api/json.h"

namespace flexllm::server {
namespace {

const RequestLimits kLimits{.defaults = {}, .vocab = 300, .max_choices = 8};

RequestBody body(bool chat, const std::string& extra) {
  const std::string base =
      chat ? R"("messages":[{"role":"user","content":"hi"}])" : R"("prompt":"hi")";
  auto parsed = parse_body("{" + base + (extra.empty() ? "" : "," + extra) + "}");
  EXPECT_TRUE(parsed) << extra;
  return *parsed;
}

tl::expected<ApiRequest, ApiError> parse(bool chat, const std::string& extra) {
  return chat ? parse_chat_request(body(chat, extra), kLimits)
              : parse_completion_request(body(chat, extra), kLimits);
}

ApiRequest good(bool chat, const std::string& extra) {
  auto request = parse(chat, extra);
  EXPECT_TRUE(request) << extra << ": " << (request ? "" : request.error().message);
  return request.value_or(ApiRequest{});
}

struct Bad {
  const char* extra;
  const char* param;
  unsigned status = 400;
};

class BadInBoth : public ::testing::TestWithParam<Bad> {};

TEST_P(BadInBoth, IsRefusedByName) {
  for (const bool chat : {true, false}) {
    const auto request = parse(chat, GetParam().extra);
    ASSERT_FALSE(request) << GetParam().extra;
    EXPECT_EQ(request.error().param, GetParam().param);
    EXPECT_EQ(request.error().status, GetParam().status);
    EXPECT_EQ(request.error().type,
              GetParam().status == 501 ? "not_supported_error" : "invalid_request_error");
    EXPECT_NE(request.error().message.find(GetParam().param), std::string::npos);
  }
}

INSTANTIATE_TEST_SUITE_P(
    Fields, BadInBoth,
    ::testing::Values(
        Bad{R"("temperature":-0.1)", "temperature"}, Bad{R"("temperature":2.1)", "temperature"},
        Bad{R"("temperature":"1")", "temperature"}, Bad{R"("temperature":true)", "temperature"},
        Bad{R"("top_p":0)", "top_p"}, Bad{R"("top_p":1.01)", "top_p"},
        Bad{R"("top_k":-2)", "top_k"}, Bad{R"("top_k":1.5)", "top_k"},
        Bad{R"("min_p":1.5)", "min_p"}, Bad{R"("n":0)", "n"}, Bad{R"("n":9)", "n"},
        Bad{R"("n":99999999999999999999)", "n"}, Bad{R"("seed":1.5)", "seed"},
        Bad{R"("seed":18446744073709551615)", "seed"}, Bad{R"("stop":"")", "stop"},
        Bad{R"("stop":["a",""])", "stop"}, Bad{R"("stop":[1])", "stop"},
        Bad{R"("stop":{})", "stop"},
        Bad{R"("stop":["1","2","3","4","5","6","7","8","9","10","11","12","13","14","15","16","17"])",
            "stop"},
        Bad{R"("stop_token_ids":[300])", "stop_token_ids"},
        Bad{R"("stop_token_ids":[-1])", "stop_token_ids"},
        Bad{R"("stop_token_ids":3)", "stop_token_ids"}, Bad{R"("max_tokens":-1)", "max_tokens"},
        Bad{R"("max_tokens":0)", "max_tokens"}, Bad{R"("max_tokens":"5")", "max_tokens"},
        Bad{R"("max_tokens":5,"max_completion_tokens":5)", "max_completion_tokens"},
        Bad{R"("ignore_eos":1)", "ignore_eos"}, Bad{R"("stream":"yes")", "stream"},
        Bad{R"("stream_options":{"include_usage":true})", "stream_options"},
        Bad{R"("stream":true,"stream_options":[])", "stream_options"},
        Bad{R"("stream":true,"stream_options":{"what":1})", "stream_options.what"},
        Bad{R"("stream":true,"stream_options":{"include_usage":1})",
            "stream_options.include_usage"},
        Bad{R"("logit_bias":{"x":1})", "logit_bias"},
        Bad{R"("logit_bias":{"300":1})", "logit_bias"},
        Bad{R"("logit_bias":{"1":101})", "logit_bias"},
        Bad{R"("logit_bias":{"01":1})", "logit_bias"}, Bad{R"("logit_bias":[1])", "logit_bias"},
        Bad{R"("presence_penalty":2.5)", "presence_penalty"},
        Bad{R"("frequency_penalty":-2.5)", "frequency_penalty"},
        Bad{R"("repetition_penalty":0)", "repetition_penalty"},
        Bad{R"("priority":"high")", "priority"}, Bad{R"("model":1)", "model"},
        Bad{R"("user":1)", "user"}, Bad{R"("response_format":"json")", "response_format"},
        Bad{R"("response_format":{"type":"xml"})", "response_format.type"},
        Bad{R"("response_format":{"type":1})", "response_format.type"},
        Bad{R"("response_format":{})", "response_format.type"},
        Bad{R"("response_format":{"type":"text","strict":true})", "response_format.strict"},
        Bad{R"("response_format":{"type":"json_schema"})", "response_format.json_schema"},
        Bad{R"("response_format":{"type":"json_schema","json_schema":{"schema":{}}})",
            "response_format.json_schema.name"},
        Bad{R"("response_format":{"type":"json_schema","json_schema":{"name":"a b","schema":{}}})",
            "response_format.json_schema.name"},
        Bad{R"("response_format":{"type":"json_schema","json_schema":{"name":"a"}})",
            "response_format.json_schema.schema"},
        Bad{R"("response_format":{"type":"json_schema","json_schema":{"name":"a","schema":[]}})",
            "response_format.json_schema.schema"},
        Bad{R"("response_format":{"type":"json_schema",)"
            R"("json_schema":{"name":"a","schema":{},"strict":1}})",
            "response_format.json_schema.strict"},
        Bad{R"("response_format":{"type":"json_object","schema":{}})", "response_format.schema"},
        Bad{R"("guided_json":{})", "guided_json"}, Bad{R"("temprature":1)", "temprature"}));

struct BadIn {
  bool chat;
  Bad bad;
};
class BadInOne : public ::testing::TestWithParam<BadIn> {};

TEST_P(BadInOne, IsRefusedByName) {
  const auto& [chat, bad] = GetParam();
  const auto request = parse(chat, bad.extra);
  ASSERT_FALSE(request) << bad.extra;
  EXPECT_EQ(request.error().param, bad.param);
  EXPECT_EQ(request.error().status, bad.status);
}

INSTANTIATE_TEST_SUITE_P(
    Fields, BadInOne,
    ::testing::Values(BadIn{true, {R"("logprobs":3)", "logprobs"}},
                      BadIn{true, {R"("top_logprobs":3)", "top_logprobs"}},
                      BadIn{true, {R"("logprobs":true,"top_logprobs":21)", "top_logprobs"}},
                      BadIn{true, {R"("tools":{})", "tools"}},
                      BadIn{true, {R"("tools":[{"type":"function"}])", "tools[0].function"}},
                      BadIn{true, {R"("tools":[{"type":"web"}])", "tools[0].type"}},
                      BadIn{true,
                            {R"("tools":[{"type":"function","function":{"name":"a b"}}])",
                             "tools[0].function.name"}},
                      BadIn{true,
                            {R"("tools":[{"type":"function","function":{"name":"f"}},)"
                             R"({"type":"function","function":{"name":"f"}}])",
                             "tools[1].function.name"}},
                      BadIn{true,
                            {R"("tools":[{"type":"function","function":{"name":"f",)"
                             R"("parameters":{"type":"string"}}}])",
                             "tools[0].function.parameters"}},
                      BadIn{true, {R"("tool_choice":"required")", "tool_choice"}},
                      BadIn{true, {R"("tool_choice":"f")", "tool_choice"}},
                      BadIn{true,
                            {R"("tool_choice":{"type":"function","function":{"name":"f"}})",
                             "tool_choice.function.name"}},
                      BadIn{true,
                            {R"("tools":[{"type":"function","function":{"name":"f"}}],)"
                             R"("response_format":{"type":"json_object"})",
                             "response_format", 501}},
                      BadIn{true, {R"("parallel_tool_calls":1)", "parallel_tool_calls"}},
                      BadIn{true, {R"("functions":[{}])", "functions", 501}},
                      BadIn{true, {R"("modalities":["audio"])", "modalities", 501}},
                      BadIn{true, {R"("store":true)", "store", 501}},
                      BadIn{true, {R"("reasoning_effort":"low")", "reasoning_effort", 501}},
                      BadIn{true, {R"("echo":true)", "echo", 501}},
                      BadIn{true, {R"("prompt":"x")", "prompt"}},
                      BadIn{false, {R"("logprobs":true)", "logprobs"}},
                      BadIn{false, {R"("logprobs":21)", "logprobs"}},
                      BadIn{false, {R"("echo":1)", "echo"}},
                      BadIn{false, {R"("best_of":2)", "best_of", 501}},
                      BadIn{false, {R"("suffix":"x")", "suffix", 501}},
                      BadIn{false, {R"("messages":[])", "messages"}}));

struct BadMessages {
  const char* messages;
  const char* param;
  unsigned status = 400;
};
class Messages : public ::testing::TestWithParam<BadMessages> {};

TEST_P(Messages, AreRefusedWithTheirPlace) {
  const auto parsed = parse_body(std::string("{\"messages\":") + GetParam().messages + "}");
  ASSERT_TRUE(parsed);
  const auto request = parse_chat_request(*parsed, kLimits);
  ASSERT_FALSE(request);
  EXPECT_EQ(request.error().param, GetParam().param);
  EXPECT_EQ(request.error().status, GetParam().status);
}

INSTANTIATE_TEST_SUITE_P(
    Places, Messages,
    ::testing::Values(
        BadMessages{"[]", "messages"}, BadMessages{"\"hi\"", "messages"},
        BadMessages{"[1]", "messages[0]"}, BadMessages{R"([{"content":"x"}])", "messages[0].role"},
        BadMessages{R"([{"role":"king","content":"x"}])", "messages[0].role"},
        BadMessages{R"([{"role":"user"}])", "messages[0].content"},
        BadMessages{R"([{"role":"user","content":null}])", "messages[0].content"},
        BadMessages{R"([{"role":"user","content":1}])", "messages[0].content"},
        BadMessages{R"([{"role":"user","content":[]}])", "messages[0].content"},
        BadMessages{
            R"([{"role":"user","content":"x"},{"role":"user","content":[{"type":"text"}]}])",
            "messages[1].content[0].text"},
        BadMessages{R"([{"role":"user","content":[{"type":"image_url","image_url":{}}]}])",
                    "messages[0].content[0].type"},
        BadMessages{R"([{"role":"user","content":"x","mood":"good"}])", "messages[0].mood"},
        BadMessages{R"([{"role":"user","content":"x","name":"bob"}])", "messages[0].name", 501},
        BadMessages{R"([{"role":"tool","content":"x"}])", "messages[0].tool_call_id"},
        BadMessages{R"([{"role":"user","content":"x","tool_calls":[{}]}])",
                    "messages[0].tool_calls"},
        BadMessages{R"([{"role":"assistant","tool_calls":[{"id":"a","type":"function",)"
                    R"("function":{"name":"f","arguments":"[1]"}}]}])",
                    "messages[0].tool_calls[0].function.arguments"},
        BadMessages{R"([{"role":"function","content":"x"}])", "messages[0].role", 501},
        BadMessages{R"([{"role":"assistant","content":"x","tool_calls":[{}]}])",
                    "messages[0].tool_calls[0].type"}));

TEST(Request, NamesTheFormatOfTheAnswer) {
  for (const bool chat : {true, false}) {
    using Kind = ResponseFormat::Kind;
    EXPECT_EQ(good(chat, "").format.kind, Kind::text);
    EXPECT_EQ(good(chat, R"("response_format":null)").format.kind, Kind::text);
    EXPECT_EQ(good(chat, R"("response_format":{"type":"text"})").format.kind, Kind::text);
    EXPECT_EQ(good(chat, R"("response_format":{"type":"json_object"})").format.kind,
              Kind::json_object);
    const auto format = good(chat, R"("response_format":{"type":"json_schema","json_schema":{)"
                                   R"("name":"z","strict":false,"description":"d","schema":)"
                                   R"({"z":1,"b":{"y":2,"x":3},"a":4}}})")
                            .format;
    EXPECT_EQ(format.kind, Kind::json_schema);
    EXPECT_EQ(format.schema.dump(), R"({"z":1,"b":{"y":2,"x":3},"a":4})") << "in its own order";
  }
  std::string members = R"("p":1)";
  for (int i = 0; i < 1000; ++i) members += ",\"p" + std::to_string(i) + "\":1";
  const auto wide = parse_body(R"({"response_format":{)" + members + "}}");
  ASSERT_FALSE(wide);
  EXPECT_NE(wide.error().find("response_format"), std::string::npos);
  EXPECT_TRUE(parse_body(R"({"logit_bias":{)" + members + "}}"));
}

TEST(ChatRequest, TakesTextPartsAndReplayedAnswers) {
  const auto parsed = parse_body(R"({"messages":[
      {"role":"developer","content":"be kind"},
      {"role":"user","content":[{"type":"text","text":"a"},{"type":"text","text":"b"}]},
      {"role":"assistant","content":"c","refusal":null,"tool_calls":[],"annotations":[],
       "audio":null,"function_call":null}]})");
  const auto request = parse_chat_request(*parsed, kLimits);
  ASSERT_TRUE(request) << request.error().message;
  EXPECT_EQ(request->messages[0].role, "system");
  EXPECT_EQ(request->messages[1].content, "a\nb");
  EXPECT_EQ(request->messages[2].content, "c");
}

TEST(ChatRequest, TakesToolsInTheOrderInWhichTheyAreWritten) {
  const std::string list =
      R"([{"type":"function","function":{"name":"z","parameters":{"properties":{"b":{},"a":{}}}}},)"
      R"({"type":"function","function":{"name":"a","description":"d","strict":true}}])";
  using Choice = Tools::Choice;
  const auto tools = good(true, "\"tools\":" + list).tools;
  EXPECT_EQ(tools.list.dump(), list);
  EXPECT_EQ(tools.names, (std::vector<std::string>{"z", "a"}));
  EXPECT_EQ(tools.choice, Choice::automatic);
  EXPECT_TRUE(tools.parallel);
  const auto none = good(true, R"("tool_choice":"none","tools":)" + list).tools;
  EXPECT_EQ(none.choice, Choice::none);
  EXPECT_TRUE(none.list.is_null()) << "the model does not see them";
  const auto one = good(true, R"("tool_choice":{"type":"function","function":{"name":"a"}},)"
                              R"("parallel_tool_calls":false,"tools":)" +
                                  list)
                       .tools;
  EXPECT_EQ(one.choice, Choice::required);
  EXPECT_EQ(one.only, "a");
  EXPECT_FALSE(one.parallel);
}

TEST(ChatRequest, TakesCallsAndTheirResults) {
  const auto parsed = parse_body(R"({"messages":[
      {"role":"assistant","content":null,"tool_calls":[{"id":"c1","type":"function",
       "function":{"name":"f","arguments":"{\"b\":1,\"a\":2}"}}]},
      {"role":"tool","tool_call_id":"c1","name":"f","content":[{"type":"text","text":"r"}]}]})");
  const auto request = parse_chat_request(*parsed, kLimits);
  ASSERT_TRUE(request) << request.error().message;
  EXPECT_EQ(request->messages[0].tool_calls[0].arguments, R"({"b":1,"a":2})");
  EXPECT_EQ(request->messages[1].tool_call_id, "c1");
  EXPECT_EQ(request->messages[1].content, "r");
}

TEST(Request, DefaultsComeFromTheModel) {
  RequestLimits limits = kLimits;
  EXPECT_EQ(good(true, "").generation.sampling.temperature, 1.0f);
  limits.defaults.temperature = 0.2f;
  limits.defaults.top_k = 7;
  const auto request = parse_chat_request(body(true, R"("top_k":-1)"), limits);
  EXPECT_EQ(request->generation.sampling.temperature, 0.2f);
  EXPECT_EQ(request->generation.sampling.top_k, 0u);
  EXPECT_EQ(parse_chat_request(body(true, ""), limits)->generation.sampling.top_k, 7u);
}

TEST(Request, ReadsEveryField) {
  for (const bool chat : {true, false}) {
    const auto request = good(chat, R"(
        "model":"m","temperature":0.5,"top_p":0.9,"top_k":40,"min_p":0.05,"n":2,"seed":-3,
        "stop":["x","y"],"stop_token_ids":[1,2],"max_completion_tokens":10,
        "min_tokens":2,"ignore_eos":true,"stream":true,"stream_options":{"include_usage":true},
        "logit_bias":{"5":-100,"6":1.5},"presence_penalty":1,"frequency_penalty":-1,
        "repetition_penalty":1.1,"user":"u","priority":-4,"response_format":{"type":"text"})");
    EXPECT_EQ(request.model, "m");
    EXPECT_TRUE(request.stream);
    EXPECT_TRUE(request.include_usage);
    const auto& generation = request.generation;
    EXPECT_EQ(generation.n, 2u);
    EXPECT_TRUE(generation.seeded);
    EXPECT_EQ(generation.max_tokens, 10u);
    EXPECT_EQ(generation.min_tokens, 2u);
    EXPECT_TRUE(generation.ignore_eos);
    EXPECT_EQ(generation.stop, (std::vector<std::string>{"x", "y"}));
    EXPECT_EQ(generation.stop_token_ids, (std::vector<uint32_t>{1, 2}));
    EXPECT_EQ(generation.priority, -4);
    const auto& sampling = generation.sampling;
    EXPECT_EQ(sampling.seed, static_cast<uint64_t>(-3));
    EXPECT_EQ(sampling.temperature, 0.5f);
    EXPECT_EQ(sampling.top_p, 0.9f);
    EXPECT_EQ(sampling.top_k, 40u);
    EXPECT_EQ(sampling.min_p, 0.05f);
    EXPECT_EQ(sampling.presence_penalty, 1.0f);
    EXPECT_EQ(sampling.frequency_penalty, -1.0f);
    EXPECT_EQ(sampling.repetition_penalty, 1.1f);
    EXPECT_EQ(sampling.logit_bias.at(5), -100.0f);
    EXPECT_EQ(sampling.logit_bias.at(6), 1.5f);
  }
  EXPECT_EQ(good(true, R"("logprobs":true,"top_logprobs":3)").generation.logprobs, 3u);
  EXPECT_EQ(good(true, R"("logprobs":true)").generation.logprobs, 0u);
  EXPECT_FALSE(good(true, R"("logprobs":false)").generation.logprobs);
  EXPECT_EQ(good(false, R"("logprobs":0)").generation.logprobs, 0u);
  EXPECT_TRUE(good(false, R"("echo":true,"max_tokens":0)").generation.echo);
  EXPECT_EQ(good(true, R"("stop":"one")").generation.stop.size(), 1u);
  good(true, R"("tools":[],"tool_choice":"auto","parallel_tool_calls":true,"store":false)");
  good(true, R"("modalities":["text"],"service_tier":"auto","seed":null,"stop":null)");
  good(false, R"("best_of":1,"suffix":"")");
}

TEST(Request, AnIntegerMayBeWrittenWithAPoint) {
  const auto request = good(false, R"("n":2.0,"seed":-4e3,"stop_token_ids":[3.0],"top_k":-1.0)");
  EXPECT_EQ(request.generation.n, 2u);
  EXPECT_EQ(request.generation.sampling.seed, static_cast<uint64_t>(-4000));
  EXPECT_EQ(request.generation.stop_token_ids, (std::vector<uint32_t>{3}));
  for (const auto* bad :
       {R"("seed":0.5)", R"("seed":1e300)", R"("seed":9223372036854775808)", R"("seed":9.3e18)",
        R"("seed":-9223372036854775809)", R"("stop_token_ids":[0.5])", R"("stop_token_ids":[-1.0])",
        R"("stop_token_ids":[300.0])"}) {
    EXPECT_FALSE(parse(true, bad)) << bad;
  }
}

TEST(Request, AStopStringIsMeasuredInCharacters) {
  std::string longest;
  for (size_t i = 0; i < kMaxStopCharacters; ++i) longest += "\xC3\xA9";
  good(true, fmt::format(R"("stop":"{}")", longest));
  EXPECT_FALSE(parse(true, fmt::format(R"("stop":"{}x")", longest)));
}

TEST(Request, MaxTokensByDefault) {
  EXPECT_FALSE(good(true, "").generation.max_tokens);
  EXPECT_EQ(good(false, "").generation.max_tokens, 16u);
}

TEST(CompletionRequest, TakesAllShapesOfPrompt) {
  auto prompts = [](const std::string& prompt) {
    const auto parsed = parse_body("{\"prompt\":" + prompt + "}");
    auto request = parse_completion_request(*parsed, kLimits);
    return request ? request->prompts : std::vector<PromptInput>{};
  };
  EXPECT_EQ(prompts("\"x\""), (std::vector<PromptInput>{"x"}));
  EXPECT_EQ(prompts("[\"x\",\"y\"]"), (std::vector<PromptInput>{"x", "y"}));
  EXPECT_EQ(prompts("[1,2]"), (std::vector<PromptInput>{std::vector<uint32_t>{1, 2}}));
  EXPECT_EQ(prompts("[[1],[2,3]]"),
            (std::vector<PromptInput>{std::vector<uint32_t>{1}, std::vector<uint32_t>{2, 3}}));
  for (const auto* bad :
       {"[]", "[300]", "[-1]", "[1,\"x\"]", "[[1],[300]]", "{}", "1", "null", "[1.5]", "[null]",
        "[\"1\",\"2\",\"3\",\"4\",\"5\",\"6\",\"7\",\"8\",\"9\"]"}) {
    EXPECT_TRUE(prompts(bad).empty()) << bad;
  }
}

TEST(Json, DepthUtf8AndSyntaxAreRefusedWithAPlace) {
  EXPECT_FALSE(parse_json(std::string(10000, '[') + std::string(10000, ']')));
  std::string objects;
  for (int i = 0; i < 10000; ++i) objects += "{\"a\":";
  EXPECT_FALSE(parse_json(objects));
  EXPECT_TRUE(parse_json(std::string(64, '[') + std::string(64, ']')));
  EXPECT_FALSE(parse_json(std::string(65, '[') + std::string(65, ']')));
  EXPECT_TRUE(parse_json("\"" + std::string(1000, '[') + "\\\"[\"")) << "brackets in a string";
  EXPECT_NE(parse_json("\"\xFF\"").error().find("UTF-8"), std::string::npos);
  EXPECT_NE(parse_json("\"\xED\xA0\x80\"").error().find("UTF-8"), std::string::npos);
  EXPECT_FALSE(parse_json(R"("\ud800")"));
  for (const auto* bad : {"", "{", "{\"a\":1,}", "nul", "1 2", "{'a':1}", "NaN", "[1e999]"}) {
    EXPECT_FALSE(parse_json(bad)) << bad;
  }
}

TEST(Error, BodyHasTheFourMembers) {
  const auto error = parse_json(to_json(context_exceeded(10, 5)));
  EXPECT_EQ((*error)["error"]["n_prompt_tokens"], 10);
  EXPECT_EQ((*error)["error"]["n_ctx"], 5);
  EXPECT_EQ((*error)["error"]["type"], "exceed_context_size_error");
  const auto plain = parse_json(to_json(internal_error()));
  EXPECT_EQ((*plain)["error"].size(), 4u);
  EXPECT_TRUE((*plain)["error"]["param"].is_null());
}

}  // namespace
}  // namespace flexllm::server
