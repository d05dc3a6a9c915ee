// The rules of streaming, through real sockets.
#include <gtest/gtest.h>

#include <thread>

#include "server/tests/http_harness.h"
#include "tokenizer/utf8.h"

namespace flexllm::server::testing {
namespace {

using namespace std::chrono_literals;
using nlohmann::json;

// The data of each event; comments are skipped. Fails on anything that is not an event.
std::vector<std::string> events_of(const std::string& body) {
  std::vector<std::string> events;
  size_t at = 0;
  while (at < body.size()) {
    const size_t end = body.find("\n\n", at);
    if (end == std::string::npos) {
      ADD_FAILURE() << "an event without an end";
      break;
    }
    const std::string event = body.substr(at, end - at);
    at = end + 2;
    if (event.starts_with(":")) continue;
    EXPECT_TRUE(event.starts_with("data: ")) << event;
    EXPECT_EQ(event.find('\n'), std::string::npos);
    events.push_back(event.substr(6));
  }
  return events;
}

std::string chat_body(const std::string& extra) {
  return R"({"messages":[{"role":"user","content":"tell a story"}],"seed":5)" + extra + "}";
}

bool pages_return(Client& prober) {
  for (int i = 0; i < 1000; ++i) {
    const auto metrics = prober.get("/metrics").body;
    if (metrics.find("flexllm_kv_pages_used 0\n") != std::string::npos &&
        metrics.find("flexllm_requests_waiting 0\n") != std::string::npos) {
      return true;
    }
    std::this_thread::sleep_for(5ms);
  }
  return false;
}

TEST(Streaming, ChatChunksKeepTheRules) {
  TestServer server;
  Client client(server);
  for (const std::string extra : {"", R"(,"n":3)", R"(,"stop":["e","ab"])",
                                  R"(,"logprobs":true,"top_logprobs":2)", R"(,"temperature":0)"}) {
    SCOPED_TRACE(extra);
    const auto whole = client.post(kChat, chat_body(R"(,"max_tokens":60)" + extra)).json();
    const auto response =
        client.post(kChat, chat_body(R"(,"max_tokens":60,"stream":true)" + extra));
    EXPECT_TRUE(response.has("Content-Type: text/event-stream"));
    auto events = events_of(response.body);
    ASSERT_GT(events.size(), 2u);
    EXPECT_EQ(events.back(), "[DONE]");
    events.pop_back();
    const json first = json::parse(events[0]);
    std::map<size_t, std::string> texts;
    std::map<size_t, json> logprobs;
    std::map<size_t, std::string> finish;
    std::map<size_t, int> chunks;
    for (const auto& event : events) {
      ASSERT_TRUE(tokenizer::is_valid_utf8(event));
      const json chunk = json::parse(event);
      EXPECT_EQ(chunk["id"], first["id"]);
      EXPECT_EQ(chunk["created"], first["created"]);
      EXPECT_EQ(chunk["model"], "fake");
      EXPECT_EQ(chunk["object"], "chat.completion.chunk");
      EXPECT_FALSE(chunk.contains("usage"));
      ASSERT_EQ(chunk["choices"].size(), 1u);
      const json& choice = chunk["choices"][0];
      const size_t index = choice["index"];
      EXPECT_EQ(choice["delta"].contains("role"), chunks[index]++ == 0);
      EXPECT_FALSE(finish.contains(index)) << "a chunk after the last";
      if (choice["finish_reason"].is_null()) {
        texts[index] += choice["delta"]["content"];
        if (!choice["logprobs"].is_null()) {
          for (const auto& entry : choice["logprobs"]["content"]) logprobs[index].push_back(entry);
        }
      } else {
        EXPECT_EQ(choice["delta"], json::object());
        finish[index] = choice["finish_reason"];
      }
    }
    ASSERT_EQ(texts.size(), whole["choices"].size());
    for (const auto& choice : whole["choices"]) {
      const size_t index = choice["index"];
      EXPECT_EQ(choice["message"]["role"], "assistant");
      EXPECT_EQ(texts[index], choice["message"]["content"]);
      EXPECT_EQ(finish[index], choice["finish_reason"]);
      if (!choice["logprobs"].is_null()) {
        EXPECT_EQ(choice["logprobs"]["content"], logprobs[index]);
        EXPECT_EQ(choice["logprobs"]["content"][0]["top_logprobs"].size(), 2u);
      }
    }
  }
}

TEST(Streaming, CompletionChunksKeepTheRules) {
  TestServer server;
  Client client(server);
  const std::string base = R"({"prompt":["one","two"],"n":2,"seed":1,"max_tokens":30,"echo":true,
                               "logprobs":2)";
  const auto whole = client.post(kCompletions, base + "}").json();
  const auto response = client.post(
      kCompletions, base + R"(,"stream":true,"stream_options":{"include_usage":true}})");
  auto events = events_of(response.body);
  ASSERT_GT(events.size(), 3u);
  EXPECT_EQ(events.back(), "[DONE]");
  events.pop_back();
  const json last = json::parse(events.back());
  EXPECT_EQ(last["choices"], json::array());
  EXPECT_EQ(last["usage"], whole["usage"]);
  events.pop_back();
  std::map<size_t, std::string> texts;
  std::map<size_t, json> offsets;
  for (const auto& event : events) {
    const json chunk = json::parse(event);
    EXPECT_EQ(chunk["object"], "text_completion");
    EXPECT_TRUE(chunk["usage"].is_null());
    const json& choice = chunk["choices"][0];
    texts[choice["index"]] += choice["text"];
    if (choice["logprobs"].is_null()) continue;
    for (const auto& offset : choice["logprobs"]["text_offset"]) {
      offsets[choice["index"]].push_back(offset);
    }
  }
  ASSERT_EQ(whole["choices"].size(), 4u);
  for (const auto& choice : whole["choices"]) {
    const size_t index = choice["index"];
    EXPECT_EQ(texts[index], choice["text"]);
    EXPECT_EQ(offsets[index], choice["logprobs"]["text_offset"]);
    EXPECT_TRUE(texts[index].starts_with(index < 2 ? "one" : "two"));
    EXPECT_TRUE(choice["logprobs"]["token_logprobs"][0].is_null());
    EXPECT_TRUE(choice["logprobs"]["top_logprobs"][0].is_null());
  }
  EXPECT_EQ(whole["usage"]["prompt_tokens"], 6);
}

TEST(Streaming, WholeCharactersOnly) {
  FakeModel split = chatty_model();
  split.bias.clear();
  for (uint32_t word = 5; word < 9; ++word) split.bias[FakeText::kFirstWord + word] = 0;
  split.bias[0xC3] = 0;
  TestServer server({}, {}, {}, split);
  Client client(server);
  for (int seed = 0; seed < 20; ++seed) {
    const auto response =
        client.post(kCompletions, R"({"prompt":"x","max_tokens":25,"stream":true,"seed":)" +
                                      std::to_string(seed) + "}");
    for (const auto& event : events_of(response.body)) {
      EXPECT_TRUE(tokenizer::is_valid_utf8(event));
    }
  }
}

TEST(Streaming, ErrorBeforeTheFirstByteIsAStatusAndAfterItAnEvent) {
  FakeModel model = chatty_model();
  model.bias[FakeText::kEnd] = -1000;
  TestServer server({}, {}, {}, model);
  Client client(server);
  server.card->bad_token = '!';
  const auto before = client.post(kCompletions, R"({"prompt":"!","stream":true})");
  EXPECT_EQ(before.status, 503);
  EXPECT_EQ(before.json()["error"]["type"], "unavailable_error");
  server.card->bad_token = -1;

  server.card->launch_ms = 2;
  client.send(Client::post_text(kCompletions, R"({"prompt":"x","max_tokens":200,"stream":true})"));
  ASSERT_TRUE(client.wait_for("data: "));
  server.card->failing_recoveries = 1;
  server.card->fail_wait_after = 2;
  const auto after = client.read();
  EXPECT_EQ(after.status, 200);
  const auto events = events_of(after.body);
  EXPECT_EQ(json::parse(events.back())["error"]["code"], "device_lost");
}

TEST(Streaming, ALongPrefillKeepsTheConnectionAlive) {
  HttpOptions options;
  options.keep_alive = 30ms;
  TestServer server(options);
  server.card->hold = true;
  Client client(server);
  client.send(Client::post_text(kCompletions, R"({"prompt":"x","max_tokens":2,"stream":true})"));
  ASSERT_TRUE(client.wait_for("\n\n"));
  EXPECT_NE(client.unread().find("\r\n: "), std::string::npos) << "a comment comes first";
  server.card->hold = false;
  const auto response = client.read();
  EXPECT_EQ(response.status, 200);
  EXPECT_TRUE(response.body.ends_with("data: [DONE]\n\n"));
  events_of(response.body);
}

TEST(Leaving, FreesTheSlotQueuedInPrefillAndInDecode) {
  FakeModel model = chatty_model();
  model.bias[FakeText::kEnd] = -1000;
  model.limits.max_batch = 2;
  TestServer server({}, {}, {}, model);
  server.card->launch_ms = 2;
  Client prober(server);
  Client stays(server);
  const std::string body = R"({"prompt":"x","max_tokens":150,"temperature":0)";
  stays.send(Client::post_text(kCompletions, body + "}"));
  Client decoding(server);
  decoding.send(Client::post_text(kCompletions, body + R"(,"stream":true})"));
  ASSERT_TRUE(decoding.wait_for("data: "));
  Client queued(server);
  queued.send(Client::post_text(kCompletions, body + "}"));
  decoding.close();
  queued.close();
  Client prefill(server);
  prefill.send(Client::post_text(kCompletions, "{\"prompt\":\"" + std::string(200, 'p') + "\"}"));
  std::this_thread::sleep_for(20ms);
  prefill.half_close();
  EXPECT_EQ(stays.read().status, 200);
  EXPECT_TRUE(pages_return(prober));
  const auto metrics = prober.get("/metrics").body;
  EXPECT_NE(metrics.find("finished_total{reason=\"cancelled\"} 3"), std::string::npos) << metrics;
}

TEST(Leaving, ASlowReaderIsDroppedAndHoldsNobodyUp) {
  HttpOptions http;
  http.send_buffer_bytes = 4096;
  http.write_timeout = 60s;
  SchedulerOptions scheduler;
  scheduler.result_bytes = 20000;
  FakeModel model = chatty_model();
  model.bias[FakeText::kEnd] = -1000;
  model.limits.context_length = 4096;
  model.limits.pages = 2048;
  TestServer server(http, {}, scheduler, model);
  Client slow(server, 4096);
  slow.send(Client::post_text(kCompletions,
                              R"({"prompt":"x","max_tokens":4000,"stream":true,"logprobs":5})"));
  Client quick(server);
  EXPECT_EQ(quick.post(kCompletions, R"({"prompt":"x","max_tokens":100})").status, 200);
  EXPECT_TRUE(pages_return(quick)) << "the slow reader still holds the card";
  const auto response = slow.read();
  const auto events = events_of(response.body);
  EXPECT_EQ(json::parse(events.back())["error"]["code"], "slow_reader");
}

TEST(Sharing, ManyClientsAtOnceGetTheirOwnAnswers) {
  TestServer server;
  std::vector<std::string> alone(16);
  auto body = [](size_t i) {
    return R"({"temperature":0,"max_tokens":30,"prompt":"client )" + std::to_string(i) + "\"}";
  };
  {
    Client client(server);
    for (size_t i = 0; i < alone.size(); ++i) {
      alone[i] = client.post(kCompletions, body(i)).json()["choices"].dump();
    }
  }
  server.card->launch_ms = 1;
  std::vector<std::thread> threads;
  for (size_t i = 0; i < alone.size(); ++i) {
    threads.emplace_back([&, i] {
      Client client(server);
      EXPECT_EQ(client.post(kCompletions, body(i)).json()["choices"].dump(), alone[i]);
    });
  }
  for (auto& thread : threads) thread.join();
  EXPECT_GT(server.card->largest_decode, 1);
}

}  // namespace
}  // namespace flexllm::server::testing
