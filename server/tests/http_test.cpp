// The server through real sockets: HTTP, limits, endpoints and errors.
#include <gtest/gtest.h>

#include <thread>

#include "server/tests/http_harness.h"

namespace flexllm::server::testing {
namespace {

using namespace std::chrono_literals;

const std::string kHello = R"({"prompt":"hello","max_tokens":3,"temperature":0})";

TEST(Http, KeepAliveAndPipeliningAnswerInOrder) {
  TestServer server;
  Client client(server);
  EXPECT_EQ(client.get("/health").status, 200);
  const auto first = client.post(kCompletions, kHello).json();
  std::string many;
  for (int i = 0; i < 5; ++i) {
    many += Client::post_text(kCompletions, kHello);
    many += "GET /version HTTP/1.1\r\nHost: x\r\n\r\n";
  }
  ASSERT_TRUE(client.send(many));
  for (int i = 0; i < 5; ++i) {
    EXPECT_EQ(client.read().json()["choices"], first["choices"]);
    EXPECT_EQ(client.read().json()["version"], "test");
  }
}

TEST(Http, PipelinedBehindAStream) {
  TestServer server;
  server.card->launch_ms = 1;
  Client client(server);
  client.send(Client::post_text(
      kChat, R"({"messages":[{"role":"user","content":"x"}],"max_tokens":20,"stream":true})"));
  ASSERT_TRUE(client.wait_for("data: "));
  client.send("GET /version HTTP/1.1\r\nHost: x\r\n\r\n");
  EXPECT_NE(client.read().body.find("data: [DONE]\n\n"), std::string::npos);
  EXPECT_EQ(client.read().json()["version"], "test");
}

TEST(Http, ChunkedBodyAndExpect) {
  TestServer server;
  Client client(server);
  client.send("POST " + kCompletions +
              " HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
              "Transfer-Encoding: chunked\r\n\r\n");
  for (const char c : kHello) client.send("1\r\n" + std::string(1, c) + "\r\n");
  client.send("0\r\n\r\n");
  EXPECT_EQ(client.read().status, 200);
  client.send("POST " + kCompletions +
              " HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
              "Expect: 100-continue\r\nContent-Length: " +
              std::to_string(kHello.size()) + "\r\n\r\n");
  EXPECT_EQ(client.read().status, 100);
  client.send(kHello);
  EXPECT_EQ(client.read().status, 200);
}

TEST(Http, Http10ClosesAndStreamsWithoutChunks) {
  TestServer server;
  Client client(server);
  const std::string body = R"({"prompt":"x","max_tokens":3,"stream":true})";
  client.send("POST " + kCompletions + " HTTP/1.0\r\nContent-Type: application/json\r\n" +
              "Content-Length: " + std::to_string(body.size()) + "\r\n\r\n" + body);
  const auto response = client.read();
  EXPECT_FALSE(response.has("Transfer-Encoding"));
  EXPECT_TRUE(response.body.ends_with("data: [DONE]\n\n"));
}

TEST(Http, HalfClosedAfterASimpleRequestIsAnswered) {
  TestServer server;
  Client client(server);
  client.send("GET /health HTTP/1.1\r\nHost: x\r\n\r\n");
  client.half_close();
  EXPECT_EQ(client.read().status, 200);
  EXPECT_EQ(client.read().status, 0);
}

TEST(Http, LimitsOnHeaderBodyAndConnections) {
  HttpOptions options;
  options.max_header_bytes = 4096;
  options.max_body_bytes = 10000;
  options.max_connections = 8;
  TestServer server(options);
  {
    Client client(server);
    const auto response = client.get("/health", "X-Big: " + std::string(9000, 'x') + "\r\n");
    EXPECT_EQ(response.status, 431);
    EXPECT_EQ(response.json()["error"]["type"], "invalid_request_error");
  }
  {
    Client client(server);
    const auto response = client.post(kCompletions, std::string(20000, 'x'));
    EXPECT_EQ(response.status, 413);
    EXPECT_EQ(response.json()["error"]["type"], "invalid_request_error");
    EXPECT_TRUE(response.has("Connection: close"));
  }
  {
    Client client(server);
    client.send("POST " + kCompletions +
                " HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
                "Transfer-Encoding: chunked\r\n\r\n");
    for (int i = 0; i < 4; ++i) client.send("fa0\r\n" + std::string(4000, 'x') + "\r\n");
    EXPECT_EQ(client.read().status, 413);
  }
  std::vector<std::unique_ptr<Client>> clients;
  for (int i = 0; i < 8; ++i) {
    clients.push_back(std::make_unique<Client>(server));
    EXPECT_EQ(clients.back()->get("/health").status, 200);
  }
  Client one_more(server);
  const auto refused = one_more.read();
  EXPECT_EQ(refused.status, 503);
  EXPECT_TRUE(refused.has("Retry-After"));
  clients.clear();
  for (int i = 0; i < 1000 && server.http->connections() > 0; ++i) {
    std::this_thread::sleep_for(5ms);
  }
  EXPECT_EQ(Client(server).get("/health").status, 200);
}

TEST(Http, RefusedConnectionsTakeNoPlace) {
  HttpOptions options;
  options.max_connections = 1;
  options.max_refusals = 3;
  TestServer server(options);
  auto served = std::make_unique<Client>(server);
  EXPECT_EQ(served->get("/health").status, 200);
  std::vector<std::unique_ptr<Client>> refused;  // they stay, and the server waits for them
  for (int i = 0; i < 3; ++i) {
    refused.push_back(std::make_unique<Client>(server));
    EXPECT_EQ(refused.back()->read().status, 503);
  }
  EXPECT_EQ(server.http->connections(), 1u);
  Client beyond(server);
  EXPECT_EQ(beyond.read().status, 0) << "closed without an answer";
  served.reset();
  for (int i = 0; i < 1000 && server.http->connections() > 0; ++i) {
    std::this_thread::sleep_for(1ms);
  }
  EXPECT_EQ(Client(server).get("/health").status, 200);
}

TEST(Http, IdleAndSlowHeadersAreCutOff) {
  HttpOptions options;
  options.idle_timeout = 100ms;
  options.body_timeout = 100ms;
  TestServer server(options);
  Client idle(server);
  EXPECT_FALSE(idle.receive());
  Client slow(server);
  slow.send("GET /hea");
  EXPECT_FALSE(slow.receive());
  Client half_body(server);
  half_body.send("POST " + kCompletions +
                 " HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
                 "Content-Length: 100\r\n\r\n{");
  EXPECT_FALSE(half_body.receive());
}

TEST(Http, GarbageIs400) {
  TestServer server;
  for (const std::string bytes :
       {"\x16\x03\x01\x02garbage\r\n\r\n", "GET / HTTP/9\r\n\r\n", "GET\r\n\r\n",
        "GET /health HTTP/1.1\r\nContent-Length: x\r\n\r\n"}) {
    Client client(server);
    client.send(bytes);
    const auto response = client.read();
    EXPECT_EQ(response.status, 400) << bytes;
    EXPECT_EQ(response.json()["error"]["type"], "invalid_request_error");
  }
}

TEST(Http, RequestIdsAreKeptOrMade) {
  TestServer server;
  Client client(server);
  EXPECT_TRUE(client.get("/health", "X-Request-Id: abc-1\r\n").has("x-request-id: abc-1\r\n"));
  const auto made = client.get("/health");
  EXPECT_TRUE(made.has("x-request-id: req-"));
  EXPECT_TRUE(client.get("/health", "X-Request-Id: " + std::string(200, 'x') + "\r\n")
                  .has("x-request-id: req-"));
}

TEST(Http, HeadIsGetWithoutTheBody) {
  TestServer server;
  Client client(server);
  client.send("HEAD /version HTTP/1.1\r\nHost: x\r\n\r\n");
  const auto head = client.read(true);
  EXPECT_EQ(head.status, 200);
  EXPECT_TRUE(head.has("Content-Length: 18"));
  EXPECT_EQ(client.get("/version").body, R"({"version":"test"})");
}

TEST(Errors, PathMethodTypeAndJson) {
  TestServer server;
  Client client(server);
  const auto no_path = client.get("/v1/nothing");
  EXPECT_EQ(no_path.status, 404);
  EXPECT_EQ(no_path.json()["error"]["type"], "not_found_error");
  const auto method = client.get(kChat);
  EXPECT_EQ(method.status, 405);
  EXPECT_EQ(method.json()["error"]["type"], "method_not_allowed");
  EXPECT_TRUE(method.has("Allow: POST"));
  {
    Client other(server);
    other.send("POST " + kChat + " HTTP/1.1\r\nHost: x\r\nContent-Type: text/plain\r\n" +
               "Content-Length: 2\r\n\r\n{}");
    EXPECT_EQ(other.read().status, 415);
  }
  for (const auto& bad : {std::string("{"), std::string("\"\xFF\""), std::string("[]"),
                          std::string(20000, '['), std::string()}) {
    const auto response = client.post(kChat, bad);
    EXPECT_EQ(response.status, 400) << bad.substr(0, 10);
    const auto error = response.json()["error"];
    EXPECT_EQ(error["type"], "invalid_request_error");
    for (const auto* member : {"message", "type", "param", "code"}) {
      EXPECT_TRUE(error.contains(member));
    }
  }
  const auto param = client.post(kChat, R"({"messages":[{"role":"king","content":""}]})");
  EXPECT_EQ(param.json()["error"]["param"], "messages[0].role");
  const auto off = client.post(kCompletions, R"({"prompt":"x","suffix":"y"})");
  EXPECT_EQ(off.status, 501);
  EXPECT_EQ(off.json()["error"]["type"], "not_supported_error");
}

TEST(Errors, ModelContextTemplateAndEmptyPrompt) {
  TestServer server;
  Client client(server);
  const auto model = client.post(kCompletions, R"({"model":"gpt-9","prompt":"x"})");
  EXPECT_EQ(model.status, 404);
  EXPECT_EQ(model.json()["error"]["type"], "not_found_error");
  EXPECT_EQ(model.json()["error"]["code"], "model_not_found");
  EXPECT_EQ(client.post(kCompletions, R"({"model":"fake","prompt":"x"})").status, 200);
  EXPECT_EQ(client.post(kCompletions, R"({"model":"default","prompt":"x"})").status, 200);
  const auto long_prompt =
      client.post(kCompletions, "{\"prompt\":\"" + std::string(300, 'x') + "\"}");
  EXPECT_EQ(long_prompt.status, 400);
  const auto error = long_prompt.json()["error"];
  EXPECT_EQ(error["type"], "exceed_context_size_error");
  EXPECT_EQ(error["n_prompt_tokens"], 300);
  EXPECT_EQ(error["n_ctx"], 256);
  EXPECT_EQ(client.post(kCompletions, R"({"prompt":""})").json()["error"]["param"], "prompt");
  const auto refused = client.post(kChat, R"({"messages":[{"role":"user","content":"refuse"}]})");
  EXPECT_EQ(refused.status, 400);
  EXPECT_EQ(refused.json()["error"]["param"], "messages");
}

TEST(Errors, WithoutAUsableTemplateOnlyChatsAreRefused) {
  TestServer server({}, {}, {}, {}, /*loaded=*/false);
  server.text->problem = "The model's chat template is not supported: line 3.";
  server.load();
  Client client(server);
  for (const std::string& path : {kChat, std::string("/apply-template")}) {
    const auto refused = client.post(path, R"({"messages":[{"role":"user","content":"x"}]})");
    EXPECT_EQ(refused.status, 501);
    EXPECT_EQ(refused.json()["error"]["param"], "messages");
    EXPECT_EQ(refused.json()["error"]["message"], server.text->problem);
  }
  EXPECT_EQ(client.post(kCompletions, R"({"prompt":"x"})").status, 200);
}

TEST(Errors, QueueFullIs429WithRetryAfter) {
  SchedulerOptions options;
  options.max_queue = 1;
  FakeModel model = chatty_model();
  model.limits.max_batch = 1;
  TestServer server({}, {}, options, model);
  server.card->hold = true;
  Client running(server);
  running.send(Client::post_text(kCompletions, kHello));
  while (server.card->launches == 0) std::this_thread::sleep_for(1ms);
  Client waiting(server);
  waiting.send(Client::post_text(kCompletions, kHello));
  Client prober(server);
  Response refused;
  for (int i = 0; i < 100; ++i) {
    if (prober.get("/metrics").body.find("flexllm_requests_waiting 1") != std::string::npos) break;
    std::this_thread::sleep_for(5ms);
  }
  refused = prober.post(kCompletions, kHello);
  EXPECT_EQ(refused.status, 429);
  EXPECT_TRUE(refused.has("Retry-After: "));
  EXPECT_EQ(refused.json()["error"]["type"], "rate_limit_error");
  server.card->hold = false;
  EXPECT_EQ(running.read().status, 200);
  EXPECT_EQ(waiting.read().status, 200);
}

TEST(Access, KeysAreAskedForAndCompared) {
  ServiceOptions options;
  options.api_keys = {"first-key", "second-key"};
  TestServer server({}, options);
  Client client(server);
  for (const auto* header : {"", "Authorization: Bearer first-ke\r\n",
                             "Authorization: Bearer first-key2\r\n", "Authorization: first-key\r\n",
                             "Authorization: Basic first-key\r\n", "Authorization: Bearer \r\n"}) {
    const auto refused = client.get("/v1/models", header);
    EXPECT_EQ(refused.status, 401) << header;
    EXPECT_EQ(refused.json()["error"]["type"], "authentication_error");
  }
  EXPECT_EQ(client.get("/v1/models", "Authorization: Bearer second-key\r\n").status, 200);
  EXPECT_EQ(client.get("/v1/models", "authorization: bearer first-key\r\n").status, 200);
  EXPECT_EQ(client.get("/health").status, 200);
  EXPECT_EQ(client.get("/ready").status, 200);
  EXPECT_EQ(client.get("/metrics").status, 401);
  EXPECT_EQ(client.get("/nothing").status, 401);
}

TEST(Access, CorsIsOffUnlessAsked) {
  const std::string origin = "Origin: http://page.example\r\n";
  {
    TestServer server;
    Client client(server);
    client.send("OPTIONS " + kChat + " HTTP/1.1\r\nHost: x\r\n" + origin + "\r\n");
    const auto response = client.read();
    EXPECT_EQ(response.status, 403);
    EXPECT_FALSE(response.has("Access-Control"));
    EXPECT_FALSE(client.get("/health", origin).has("Access-Control"));
    for (const auto& foreign : {origin, std::string("Origin: null\r\n"),
                                std::string("Origin: http://127.0.0.1:8080\r\n")}) {
      Client page(server);
      const auto refused = page.post(kCompletions, kHello, foreign);
      EXPECT_EQ(refused.status, 403) << foreign;
      EXPECT_EQ(refused.json()["error"]["type"], "permission_error");
      EXPECT_EQ(Client(server).get("/metrics", foreign).status, 403);
      EXPECT_EQ(Client(server).get("/ready", foreign).status, 200);
    }
    EXPECT_EQ(server.card->launches, 0);
  }
  ServiceOptions options;
  options.cors_origins = {"http://page.example"};
  TestServer server({}, options);
  Client client(server);
  client.send("OPTIONS " + kChat + " HTTP/1.1\r\nHost: x\r\n" + origin + "\r\n");
  const auto preflight = client.read();
  EXPECT_EQ(preflight.status, 204);
  EXPECT_TRUE(preflight.has("Access-Control-Allow-Origin: http://page.example"));
  EXPECT_TRUE(preflight.has("Access-Control-Allow-Headers: authorization, content-type\r\n"));
  client.send("OPTIONS " + kChat + " HTTP/1.1\r\nHost: x\r\n" + origin +
              "Access-Control-Request-Headers: authorization,x-stainless-os\r\n\r\n");
  EXPECT_TRUE(client.read().has("Access-Control-Allow-Headers: authorization,x-stainless-os\r\n"));
  EXPECT_EQ(client.post(kCompletions, kHello, origin).status, 200);
  EXPECT_EQ(Client(server).post(kCompletions, kHello, "Origin: http://other\r\n").status, 403);
  EXPECT_TRUE(client.get("/health", origin).has("Access-Control-Allow-Origin"));
  EXPECT_FALSE(client.get("/health", "Origin: http://other\r\n").has("Access-Control"));
}

TEST(Endpoints, ModelsTokensTemplatesMetrics) {
  TestServer server;
  Client client(server);
  const auto models = client.get("/v1/models").json();
  EXPECT_EQ(models["data"][0]["id"], "fake");
  EXPECT_EQ(models["data"][0]["max_model_len"], 256);
  EXPECT_EQ(client.get("/v1/models/fake").json()["id"], "fake");
  EXPECT_EQ(client.get("/v1/models/f%61ke").status, 200);
  EXPECT_EQ(client.get("/v1/models/other").status, 404);
  EXPECT_EQ(client.post("/tokenize", R"({"prompt":"ab"})").json()["tokens"],
            (nlohmann::json{97, 98}));
  EXPECT_EQ(client.post("/tokenize", R"({"content":"ab"})").status, 400);
  EXPECT_EQ(client.post("/detokenize", R"({"tokens":[97,263,264]})").json()["prompt"],
            "a\xF0\x9F\x98\x80");
  EXPECT_EQ(client.post("/detokenize", R"({"tokens":[300]})").json()["error"]["param"], "tokens");
  const auto prompt =
      client.post("/apply-template", R"({"messages":[{"role":"user","content":"x"}]})").json();
  EXPECT_EQ(prompt["prompt"], "<user>x\n<assistant>");
  EXPECT_EQ(prompt["tokens"].size(), 19u);
  client.post(kCompletions, kHello);
  const auto metrics = client.get("/metrics");
  EXPECT_TRUE(metrics.has("text/plain; version=0.0.4"));
  EXPECT_NE(metrics.body.find("flexllm_generated_tokens_total 3"), std::string::npos);
  EXPECT_NE(metrics.body.find("flexllm_request_seconds_count 1"), std::string::npos);
}

TEST(Lifecycle, LoadingReadyDrainingAndFinish) {
  auto server = std::make_unique<TestServer>(HttpOptions{}, ServiceOptions{}, SchedulerOptions{},
                                             chatty_model(), false);
  Client client(*server);
  EXPECT_EQ(client.get("/health").status, 200);
  EXPECT_EQ(client.get("/ready").status, 503);
  const auto loading = client.post(kCompletions, kHello);
  EXPECT_EQ(loading.status, 503);
  EXPECT_EQ(loading.json()["error"]["type"], "unavailable_error");
  EXPECT_TRUE(loading.has("Retry-After"));
  server->load();
  EXPECT_EQ(client.get("/ready").status, 200);

  server->card->launch_ms = 10;
  Client running(*server);
  running.send(Client::post_text(kCompletions, R"({"prompt":"x","max_tokens":10,"stream":true,
                                                   "ignore_eos":true})"));
  ASSERT_TRUE(running.wait_for("data: "));
  std::thread drain([&] { server->service->drain(60s); });
  Response ready;
  while ((ready = client.get("/ready")).status == 200) std::this_thread::sleep_for(1ms);
  EXPECT_EQ(ready.status, 503);
  EXPECT_EQ(client.post(kCompletions, kHello).json()["error"]["code"], "draining");
  const auto whole = running.read();
  EXPECT_TRUE(whole.body.ends_with("data: [DONE]\n\n"));
  drain.join();
  server->http->finish(10s);
  EXPECT_EQ(client.get("/health").status, 0);
  EXPECT_EQ(server->http->connections(), 0u);
}

TEST(Lifecycle, AddressInUseIsSaid) {
  TestServer server;
  HttpOptions options;
  options.port = server.http->port();
  const auto second = HttpServer::start(options, server.service);
  ASSERT_FALSE(second);
  EXPECT_NE(second.error().find(std::to_string(*options.port)), std::string::npos);
}

}  // namespace
}  // namespace flexllm::server::testing
