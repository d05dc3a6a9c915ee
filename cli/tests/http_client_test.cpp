// URLs, and event streams however they are cut.
#include "cli/http_client.h"

#include <gtest/gtest.h>

#include "cli/sse_reader.h"

namespace flexllm::cli {
namespace {

TEST(Url, Parts) {
  const auto plain = parse_url("http://example.org");
  EXPECT_EQ(plain->host, "example.org");
  EXPECT_EQ(plain->port, "80");
  EXPECT_EQ(plain->base, "");
  const auto full = parse_url("http://127.0.0.1:8080/llm/v1/");
  EXPECT_EQ(full->host, "127.0.0.1");
  EXPECT_EQ(full->port, "8080");
  EXPECT_EQ(full->base, "/llm");
  const auto ipv6 = parse_url("http://[::1]:99/v1");
  EXPECT_EQ(ipv6->host, "::1");
  EXPECT_EQ(ipv6->port, "99");
  EXPECT_EQ(parse_url("http://[::1]")->port, "80");
  EXPECT_FALSE(plain->tls);
  const auto https = parse_url("https://example.org/v1");
  EXPECT_EQ(https->port, "443");
  EXPECT_TRUE(https->tls);
  const auto local = parse_url("unix:/run/x.sock");
  EXPECT_EQ(local->unix_socket, "/run/x.sock");
  EXPECT_EQ(local->authority(), "localhost");
  EXPECT_EQ(ipv6->authority(), "[::1]:99");
  EXPECT_EQ(parse_url("https://x", "/nonexistent").error(),
            "/nonexistent: holds no certificate to trust");
  for (const auto* bad : {"", "example.org", "ftp://x", "http://", "https://:80", "http://x:y",
                          "http://x:", "unix:"}) {
    EXPECT_FALSE(parse_url(bad)) << bad;
  }
}

TEST(SseReader, AnyCutGivesTheSameEvents) {
  const std::string stream =
      ": hello\n\ndata: one\n\ndata:two\r\n\r\nevent: x\nid: 1\ndata: three\ndata: four\n\n"
      "data: \n\n: bye\ndata: [DONE]\n\ndata: unfinished";
  const std::vector<std::string> expected = {"one", "two", "three\nfour", "", "[DONE]"};
  for (size_t size = 1; size < 20; ++size) {
    SseReader reader;
    std::vector<std::string> events;
    for (size_t at = 0; at < stream.size(); at += size) {
      for (auto& event : reader.feed(std::string_view(stream).substr(at, size))) {
        events.push_back(event);
      }
    }
    EXPECT_EQ(events, expected) << size;
  }
}

TEST(HttpClient, SaysWhenNobodyListens) {
  HttpClient client(*parse_url("http://127.0.0.1:1"), "");
  const auto answer = client.get("/v1/models");
  ASSERT_FALSE(answer);
  EXPECT_EQ(answer.error().kind, ClientError::Kind::unreachable);
}

}  // namespace
}  // namespace flexllm::cli
