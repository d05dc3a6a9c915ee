// What carries HTTP: TLS and Unix sockets.
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/stat.h>

#include <cerrno>
#include <fstream>
#include <thread>

#include "server/tests/tls_client.h"

namespace flexllm::server::testing {
namespace {

using namespace std::chrono_literals;

const std::string kHello = R"({"prompt":"hello","max_tokens":3,"temperature":0})";
const std::string kHelloStream =
    R"({"prompt":"hello","max_tokens":20,"temperature":0,"stream":true})";

class Transport : public ::testing::Test {
 protected:
  void SetUp() override {
    signal(SIGPIPE, SIG_IGN);  // the client's own writes
    folder_ = std::filesystem::path(::testing::TempDir()) /
              ("flexllm-transport-" + std::to_string(::getpid()));
    std::filesystem::create_directories(folder_);
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  static HttpOptions tls(const CertificateFiles& files) {
    HttpOptions options;
    options.tls_certificate = files.certificate;
    options.tls_key = files.key;
    return options;
  }
  static HttpOptions only_unix(const std::filesystem::path& path) {
    HttpOptions options;
    options.port.reset();
    options.unix_socket = path;
    return options;
  }
  static std::string error_of(HttpOptions options) {
    if (options.port) options.port = 0;
    const auto started = HttpServer::start(options, std::make_shared<Service>(ServiceOptions{}));
    return started ? "started" : started.error();
  }

  std::filesystem::path folder_;
};

TEST_F(Transport, UnderTlsEverythingIsTheSame) {
  TestServer plain;
  const auto expected = Client(plain).post(kCompletions, kHello).json()["choices"];
  TestServer server(tls(make_certificate(folder_, "own")));
  for (const int version : {TLS1_2_VERSION, TLS1_3_VERSION}) {
    TlsClient client(server, version);
    ASSERT_TRUE(client.greeted());
    EXPECT_EQ(client.post(kCompletions, kHello).json()["choices"], expected);
    client.send(Client::post_text(kCompletions, kHelloStream) +
                "GET /version HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    EXPECT_TRUE(client.read().body.ends_with("data: [DONE]\n\n"));
    EXPECT_EQ(client.read().json()["version"], "test");
    EXPECT_FALSE(client.receive());
    EXPECT_TRUE(client.saw_the_end());
  }
}

TEST_F(Transport, OldVersionsOfTlsAreRefused) {
  TestServer server(tls(make_certificate(folder_, "own")));
  EXPECT_FALSE(TlsClient(server, TLS1_1_VERSION).greeted());
}

TEST_F(Transport, LargeBodiesAndLimitsUnderTls) {
  HttpOptions options = tls(make_certificate(folder_, "own"));
  options.max_body_bytes = 300000;
  options.max_connections = 2;
  TestServer server(options);
  TlsClient client(server);
  EXPECT_EQ(client.post(kCompletions, "{\"prompt\":\"" + std::string(250000, 'x') + "\"}").status,
            400);
  EXPECT_EQ(client.post(kCompletions, std::string(900000, 'x')).status, 413);
  EXPECT_FALSE(client.receive());
  EXPECT_TRUE(client.saw_the_end());
  for (int i = 0; i < 1000 && server.http->connections() > 0; ++i) std::this_thread::sleep_for(5ms);
  TlsClient first(server);
  TlsClient second(server);
  EXPECT_EQ(second.get("/health").status, 200);
  EXPECT_EQ(TlsClient(server).read().status, 503);
}

TEST_F(Transport, PlainHttpToATlsPortIsClosedCleanly) {
  TestServer server(tls(make_certificate(folder_, "own")));
  Client client(server);
  client.send("GET /health HTTP/1.1\r\nHost: x\r\n\r\n" + std::string(5000, 'x'));
  errno = 0;
  while (client.receive()) {
  }
  EXPECT_EQ(errno, 0) << "no reset";
}

TEST_F(Transport, SilentHandshakesEndAndHoldNobodyUp) {
  HttpOptions options = tls(make_certificate(folder_, "own"));
  options.handshake_timeout = 200ms;
  options.threads = 1;
  TestServer server(options);
  std::vector<std::unique_ptr<Client>> silent;
  for (int i = 0; i < 20; ++i) silent.push_back(std::make_unique<Client>(server));
  silent.front()->send("\x16\x03\x01");  // begins, and says no more
  EXPECT_EQ(TlsClient(server).get("/health").status, 200);
  for (auto& client : silent) EXPECT_FALSE(client->receive());
}

TEST_F(Transport, AClientThatLeavesUnderTlsFreesItsSlot) {
  FakeModel model = chatty_model();
  model.bias[FakeText::kEnd] = -1000;
  TestServer server(tls(make_certificate(folder_, "own")), {}, {}, model);
  server.card->launch_ms = 2;
  {
    TlsClient client(server);
    client.send(
        Client::post_text(kCompletions, R"({"prompt":"x","max_tokens":200,"stream":true})"));
    ASSERT_TRUE(client.wait_for("data: "));
  }
  TlsClient prober(server);
  std::string metrics;
  for (int i = 0; i < 2000; ++i) {
    metrics = prober.get("/metrics").body;
    if (metrics.find("finished_total{reason=\"cancelled\"} 1") != std::string::npos) return;
    std::this_thread::sleep_for(5ms);
  }
  FAIL() << metrics;
}

TEST_F(Transport, UnsoundCertificatesAreSaidAtTheStart) {
  const auto good = make_certificate(folder_, "good");
  const auto other = make_certificate(folder_, "other");
  const auto said = [](const HttpOptions& options, const std::string& file, const char* what) {
    const std::string error = error_of(options);
    EXPECT_TRUE(error.starts_with(file + ": ")) << error;
    EXPECT_NE(error.find(what), std::string::npos) << error;
  };
  said(tls({good.certificate, other.key}), other.key, "is not the key of ");
  said(tls({folder_ / "none", good.key}), folder_ / "none", "cannot be read");
  said(tls({good.certificate, folder_ / "none"}), folder_ / "none", "cannot be read");
  said(tls({folder_, good.key}), folder_, "cannot be read");
  said(tls({good.key, good.key}), good.key, "holds no certificate");
  said(tls({good.certificate, good.certificate}), good.certificate, "holds no key");
  const auto expired = make_certificate(folder_, "expired", -3600, -60);
  said(tls(expired), expired.certificate, "expired on 2");
  const auto early = make_certificate(folder_, "early", 3600, 7200);
  said(tls(early), early.certificate, "is not valid before 2");
  const auto locked = make_certificate(folder_, "locked", -60, 3600, "secret");
  said(tls(locked), locked.key, "not encrypted");
}

TEST_F(Transport, ANewCertificateIsTakenWithoutClosingAnything) {
  const auto files = make_certificate(folder_, "first");
  const auto second = make_certificate(folder_, "second");
  TestServer server(tls(files));
  TlsClient old(server);
  EXPECT_EQ(old.server_name(), "first");
  std::filesystem::copy_file(second.certificate, files.certificate,
                             std::filesystem::copy_options::overwrite_existing);
  const auto halfway = server.http->reload_tls();
  ASSERT_FALSE(halfway);
  EXPECT_NE(halfway.error().find("is not the key of"), std::string::npos);
  EXPECT_EQ(TlsClient(server).server_name(), "first");
  std::filesystem::copy_file(second.key, files.key,
                             std::filesystem::copy_options::overwrite_existing);
  EXPECT_TRUE(server.http->reload_tls());
  EXPECT_EQ(TlsClient(server).server_name(), "second");
  EXPECT_EQ(old.get("/health").status, 200);
}

TEST_F(Transport, AUnixSocketAloneOrBesideTcp) {
  const auto path = folder_ / "socket";
  {
    TestServer server(only_unix(path));
    EXPECT_EQ(server.http->port(), 0);
    Client client(path.string());
    EXPECT_EQ(client.get("/health").status, 200);
    EXPECT_TRUE(client.post(kCompletions, kHelloStream).body.ends_with("data: [DONE]\n\n"));
    struct stat found = {};
    ASSERT_EQ(::stat(path.c_str(), &found), 0);
    EXPECT_EQ(found.st_mode & 0777, 0600u);
  }
  EXPECT_FALSE(std::filesystem::exists(path));
  HttpOptions both;
  both.unix_socket = path;
  both.unix_socket_mode = 0660;
  TestServer server(both);
  EXPECT_EQ(Client(server).get("/health").status, 200);
  EXPECT_EQ(Client(path.string()).get("/health").status, 200);
  struct stat found = {};
  ASSERT_EQ(::stat(path.c_str(), &found), 0);
  EXPECT_EQ(found.st_mode & 0777, 0660u);
}

TEST_F(Transport, ALeftSocketIsReplacedAndAServedOneIsNot) {
  const auto path = folder_ / "socket";
  {
    const int dead = ::socket(AF_UNIX, SOCK_STREAM, 0);
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    path.string().copy(address.sun_path, sizeof address.sun_path - 1);
    ASSERT_EQ(::bind(dead, reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
    ::close(dead);
    ASSERT_TRUE(std::filesystem::is_socket(path));
  }
  TestServer server(only_unix(path));
  EXPECT_EQ(Client(path.string()).get("/health").status, 200);
  EXPECT_NE(error_of(only_unix(path)).find("another server listens there"), std::string::npos);
  EXPECT_EQ(Client(path.string()).get("/health").status, 200);
}

TEST_F(Transport, OnlyItsOwnSocketIsRemoved) {
  const auto path = folder_ / "socket";
  {
    TestServer server(only_unix(path));
    std::filesystem::remove(path);
    std::ofstream(path) << "somebody's";
  }
  EXPECT_TRUE(std::filesystem::is_regular_file(path));
  EXPECT_EQ(error_of(only_unix(path)), path.string() + ": is there and is not a socket");
  EXPECT_NE(error_of(only_unix(folder_ / "none" / "socket")).find("No such file"),
            std::string::npos);
  EXPECT_NE(error_of(only_unix(folder_ / std::string(200, 'x'))).find("too long"),
            std::string::npos);
}

}  // namespace
}  // namespace flexllm::server::testing
