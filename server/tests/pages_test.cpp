// The web pages and what they may do, and /state.
#include <gtest/gtest.h>

#include "server/api/openapi/document.h"
#include "server/tests/http_harness.h"
#include "server/web/assets.h"

namespace flexllm::server::testing {
namespace {

const std::string kHello = R"({"prompt": "hello", "max_tokens": 4})";

ServiceOptions with_key() {
  ServiceOptions options;
  options.api_keys = {"secret"};
  return options;
}

std::string header(const Response& response, const std::string& name) {
  const size_t at = response.head.find("\r\n" + name + ": ");
  if (at == std::string::npos) return {};
  const size_t begin = at + name.size() + 4;
  return response.head.substr(begin, response.head.find("\r\n", begin) - begin);
}

TEST(Pages, AreServedWithoutAKeyAndMayLoadNothingFromElsewhere) {
  TestServer server({}, with_key(), {}, chatty_model(), /*loaded=*/false);
  Client client(server);
  ASSERT_GE(web::assets().size(), 5u);
  for (const auto& asset : web::assets()) {
    SCOPED_TRACE(asset.path);
    const auto reply = client.get(asset.path);
    EXPECT_EQ(reply.status, 200);
    EXPECT_EQ(reply.body, asset.body);
    EXPECT_EQ(header(reply, "Content-Type"), asset.content_type);
    EXPECT_EQ(header(reply, "X-Content-Type-Options"), "nosniff");
    const std::string policy = header(reply, "Content-Security-Policy");
    EXPECT_TRUE(policy.starts_with("default-src 'none'; ")) << policy;
    EXPECT_EQ(policy.find("unsafe"), std::string::npos) << policy;
    EXPECT_EQ(policy.find("http"), std::string::npos) << policy;
    EXPECT_EQ(policy.find('*'), std::string::npos) << policy;
    for (const char* no_page : {"http://", "https://", "//cdn"}) {
      const bool svg = asset.body.find("http://www.w3.org/2000/svg") != std::string_view::npos;
      if (!svg) {
        EXPECT_EQ(asset.body.find(no_page), std::string_view::npos);
      }
    }
  }
  const std::string key = "Authorization: Bearer secret\r\n";
  EXPECT_EQ(client.get("/web/", key).status, 404);
  EXPECT_EQ(client.get("/web/../web/app.js", key).status, 404);
  EXPECT_EQ(client.get("/web/app.js/", key).status, 404);
  EXPECT_EQ(client.post("/", "{}", key).status, 405);
}

TEST(Pages, AreNotSentAgainToWhoHasThem) {
  TestServer server;
  Client client(server);
  const auto first = client.get("/");
  const std::string etag = header(first, "ETag");
  ASSERT_GT(etag.size(), 10u);
  client.send("GET / HTTP/1.1\r\nHost: x\r\nIf-None-Match: \"other\", " + etag + "\r\n\r\n");
  ASSERT_TRUE(client.wait_for("\r\n\r\n"));
  const auto again = client.read(/*head_only=*/true);
  EXPECT_EQ(again.status, 304);
  EXPECT_EQ(header(again, "ETag"), etag);
  EXPECT_FALSE(again.has("Content-Length"));
  EXPECT_EQ(client.unread(), "");
  EXPECT_EQ(client.get("/", "If-None-Match: \"other\"\r\n").status, 200);
  EXPECT_NE(header(client.get("/docs"), "ETag"), etag);
}

TEST(Pages, MayCallWhereTheyCameFrom) {
  TestServer server;
  const auto status = [&](const std::string& host, const std::string& origin) {
    Client client(server);
    client.send("POST " + kCompletions + " HTTP/1.1\r\nHost: " + host + "\r\nOrigin: " + origin +
                "\r\nContent-Type: application/json\r\nContent-Length: " +
                std::to_string(kHello.size()) + "\r\n\r\n" + kHello);
    return client.read().status;
  };
  EXPECT_EQ(status("127.0.0.1:8080", "http://127.0.0.1:8080"), 200);
  EXPECT_EQ(status("localhost:8080", "http://LocalHost:8080"), 200);
  EXPECT_EQ(status("[::1]:8080", "http://[::1]:8080"), 200);
  EXPECT_EQ(status("127.0.0.1:8080", "http://127.0.0.1:8081"), 403);
  EXPECT_EQ(status("127.0.0.1:8080", "http://127.0.0.1"), 403);
  EXPECT_EQ(status("127.0.0.1:8080", "http://localhost:8080"), 403);
  EXPECT_EQ(status("127.0.0.1:8080", "http://x.127.0.0.1:8080"), 403);
  EXPECT_EQ(status("127.0.0.1:8080", "127.0.0.1:8080"), 403);
  EXPECT_EQ(status("127.0.0.1:8080", "null"), 403);
  EXPECT_EQ(status("", "http://"), 403);
}

TEST(State, IsWhatItsDescriptionSays) {
  TestServer server({}, with_key(), {}, chatty_model(), /*loaded=*/false);
  const std::string key = "Authorization: Bearer secret\r\n";
  Client client(server);
  EXPECT_EQ(client.get("/state").status, 401);
  client.close();
  Client keyed(server);
  const auto before = keyed.get("/state", key).json();
  EXPECT_EQ(before["status"], "loading");
  EXPECT_EQ(before["model"], nullptr);
  server.load();
  ASSERT_EQ(keyed.post(kCompletions, kHello, key).status, 200);
  const auto state = keyed.get("/state", key).json();
  EXPECT_EQ(state["status"], "ready");
  EXPECT_EQ(state["model"], "fake");
  EXPECT_EQ(state["max_model_len"], 256);
  EXPECT_EQ(state["sequences"]["max"], 4);
  EXPECT_EQ(state["kv_pages"]["total"], 64);
  EXPECT_GT(state["generated_tokens"], 0);
  const auto all = openapi::document({.defaults = {}, .vocab = 300, .max_choices = 8}, true);
  const auto& members = all["components"]["schemas"]["State"]["properties"];
  ASSERT_EQ(members.size(), state.size());
  for (const auto& [name, value] : state.items()) EXPECT_TRUE(members.contains(name)) << name;
}

TEST(State, TellsTheRateOfTheLastSeconds) {
  using namespace std::chrono_literals;
  TokenRate rate;
  const TokenRate::Clock::time_point start{};
  EXPECT_EQ(rate.at(100, start), std::nullopt);
  EXPECT_EQ(rate.at(101, start + 100ms), std::nullopt);
  EXPECT_EQ(rate.at(120, start + 1s), 20.0);
  EXPECT_EQ(rate.at(140, start + 2s), 20.0);
  EXPECT_EQ(rate.at(140, start + 10s), 4.0);
  EXPECT_EQ(rate.at(140, start + 12s), 0.0);          // since 2 s: it was 140 then
  EXPECT_EQ(rate.at(999, start + 1h), std::nullopt);  // nobody has looked for long
}

}  // namespace
}  // namespace flexllm::server::testing
