// Who may ask, and what is written down about it.
#include <gtest/gtest.h>

#include <fstream>
#include <thread>

#include "server/http/access_log.h"
#include "server/tests/http_harness.h"

namespace flexllm::server::testing {
namespace {

using nlohmann::json;

const std::string kHello = R"({"prompt":"hello","max_tokens":3,"temperature":0})";

class AccessLogTest : public ::testing::Test {
 protected:
  void TearDown() override {
    for (const auto& file : {file_, rotated_}) std::filesystem::remove(file);
  }
  HttpOptions logged() const {
    HttpOptions options;
    options.access_log = file_;
    return options;
  }
  static std::vector<json> lines(const std::filesystem::path& file) {
    std::ifstream in(file);
    std::vector<json> out;
    std::string line;
    while (std::getline(in, line)) out.push_back(json::parse(line));
    return out;
  }
  // The line of an answer is written just after the answer.
  static std::vector<json> lines_when(const std::filesystem::path& file, size_t count) {
    for (int i = 0; i < 2000 && lines(file).size() < count; ++i) {
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }
    return lines(file);
  }

  const std::filesystem::path file_ =
      std::filesystem::path(::testing::TempDir()) / ("access-" + std::to_string(::getpid()));
  const std::filesystem::path rotated_ = file_.string() + ".1";
};

TEST_F(AccessLogTest, ALineForEachAnswer) {
  ServiceOptions access;
  access.api_keys = {"first-key", "second-key"};
  TestServer server(logged(), access);
  const std::string key = "Authorization: Bearer second-key\r\n";
  {
    Client client(server);
    client.get("/health?secret=1", "X-Request-Id: abc\r\n");
    client.get("/v1/models");
    client.post(kCompletions, kHello, key);
    client.post(kCompletions,
                R"({"prompt":"hello","max_tokens":5,"ignore_eos":true,"stream":true})", key);
  }
  ASSERT_EQ(lines_when(file_, 4).size(), 4u);  // another connection's may come before them
  Client leaver(server);
  const int launches = server.card->launches;
  server.card->hold = true;
  leaver.send(Client::post_text(kCompletions, kHello, key));
  while (server.card->launches == launches)
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  leaver.close();
  const auto all = lines_when(file_, 5);
  server.card->hold = false;
  ASSERT_EQ(all.size(), 5u);
  const json& health = all[0];
  EXPECT_EQ(health["id"], "abc");
  EXPECT_EQ(health["method"], "GET");
  EXPECT_EQ(health["path"], "/health");
  EXPECT_EQ(health["status"], 200);
  EXPECT_GT(health["bytes"], 50);
  EXPECT_GE(health["duration_ms"], 0);
  const std::string time = health["time"];
  EXPECT_TRUE(time.starts_with("20") && time.ends_with("Z") && time.size() == 24) << time;
  EXPECT_FALSE(health.contains("key") || health.contains("prompt_tokens"));
  EXPECT_EQ(all[1]["status"], 401);
  EXPECT_FALSE(all[1].contains("key"));
  EXPECT_EQ(all[2]["key"], 2);
  EXPECT_EQ(all[2]["prompt_tokens"], 5);
  EXPECT_LE(all[2]["completion_tokens"], 3);
  EXPECT_EQ(all[3]["prompt_tokens"], 5);
  EXPECT_EQ(all[3]["completion_tokens"], 5);
  EXPECT_EQ(all[4]["status"], 499);
  std::ifstream in(file_);
  const std::string text{std::istreambuf_iterator<char>(in), {}};
  EXPECT_EQ(text.find("second-key"), std::string::npos);
  EXPECT_EQ(text.find("secret"), std::string::npos);
}

TEST_F(AccessLogTest, WhoLeavesAfterTheLastEventHasHadAll) {
  TestServer server(logged());
  for (int i = 0; i < 20; ++i) {
    Client client(server);
    client.send(Client::post_text(kCompletions, R"({"prompt":"x","max_tokens":2,"stream":true})"));
    ASSERT_TRUE(client.wait_for("data: [DONE]"));
  }
  const auto all = lines_when(file_, 20);
  ASSERT_EQ(all.size(), 20u);
  for (const auto& line : all) EXPECT_EQ(line["status"], 200);
  for (int i = 0; i < 2000 && server.http->connections() > 0; ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  EXPECT_EQ(server.http->connections(), 0u) << "it waits for what has come already";
}

TEST_F(AccessLogTest, IsOpenedAnewAfterRotation) {
  TestServer server(logged());
  Client client(server);
  client.get("/health");
  ASSERT_EQ(lines_when(file_, 1).size(), 1u);
  std::filesystem::rename(file_, rotated_);
  client.get("/health");
  ASSERT_EQ(lines_when(rotated_, 2).size(), 2u);
  ASSERT_TRUE(server.http->reopen_access_log());
  client.get("/version");
  EXPECT_EQ(lines_when(file_, 1).size(), 1u);
  EXPECT_EQ(lines(rotated_).size(), 2u);
}

TEST_F(AccessLogTest, WhatCannotBeOpenedIsSaid) {
  HttpOptions options;
  options.port = 0;
  options.access_log = "/nonexistent/log";
  const auto server = HttpServer::start(options, std::make_shared<Service>(ServiceOptions{}));
  ASSERT_FALSE(server);
  EXPECT_EQ(server.error(), "/nonexistent/log: No such file or directory");
}

TEST_F(AccessLogTest, AFullDiskStopsNothing) {
  HttpOptions options;
  options.access_log = "/dev/full";
  TestServer server(options);
  Client client(server);
  for (int i = 0; i < 20; ++i) EXPECT_EQ(client.post(kCompletions, kHello).status, 200);
}

TEST(AccessLogLine, HasOnlyUtf8) {
  HttpRequest request;
  request.id = "id";
  request.method = "GET";
  const auto line = to_json({request, "/\xFF\"\n", 404, 0, {}, {}}, {});
  EXPECT_EQ(json::parse(line)["path"], "/\xEF\xBF\xBD\"\n");
}

TEST(Keys, AreReplacedWhileConnectionsLive) {
  ServiceOptions options;
  options.api_keys = {"old-key"};
  TestServer server({}, options);
  Client client(server);
  const std::string old_key = "Authorization: Bearer old-key\r\n";
  const std::string new_key = "Authorization: Bearer new-key\r\n";
  EXPECT_EQ(client.get("/v1/models", old_key).status, 200);
  EXPECT_EQ(client.get("/v1/models", new_key).status, 401);
  server.service->set_api_keys({"new-key"});
  EXPECT_EQ(client.get("/v1/models", old_key).status, 401);
  EXPECT_EQ(client.get("/v1/models", new_key).status, 200);
}

TEST(Hosts, OnlyNamesOfThisMachineWhereAsked) {
  ServiceOptions options;
  options.allowed_hosts = {"model.example"};
  TestServer server({}, options);
  Client client(server);
  const auto status = [&](const std::string& host) {
    client.send("GET /v1/models HTTP/1.1\r\nHost: " + host + "\r\n\r\n");
    return client.read().status;
  };
  for (const auto* good :
       {"localhost", "LOCALHOST:8080", "a.localhost:1", "127.0.0.1:8080", "127.1.2.3", "[::1]:8080",
        "[::1]", "model.example", "Model.Example:80"}) {
    EXPECT_EQ(status(good), 200) << good;
  }
  for (const auto* bad : {"evil.example", "localhost.evil.example", "evillocalhost", "10.0.0.1",
                          "[::2]", "127.0.0.1.evil.example", "[localhost", ":80"}) {
    EXPECT_EQ(status(bad), 403) << bad;
  }
  client.send("GET /health HTTP/1.1\r\nHost: evil.example\r\n\r\n");
  EXPECT_EQ(client.read().status, 200);
  TestServer open;
  Client other(open);
  other.send("GET /v1/models HTTP/1.1\r\nHost: evil.example\r\n\r\n");
  EXPECT_EQ(other.read().status, 200);
}

}  // namespace
}  // namespace flexllm::server::testing
