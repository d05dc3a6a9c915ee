// The whole server on a fake card, for clients under test: prints its port and serves until its
// input ends.
//   --small          a card that answers at once, and few choices
//   --endless        a slow card, and a model that never ends by itself
//   --tls FOLDER     HTTPS, with a certificate for "localhost" that it writes to FOLDER/own.crt
//   --unix PATH      only on a Unix socket
//   --connections N  at once
//   --patience S     seconds for a head, a body, a handshake, or a reader to read
#include <spdlog/sinks/stdout_color_sinks.h>
#include <spdlog/spdlog.h>

#include <cstdio>
#include <cstdlib>
#include <string>

#include "server/api/service.h"
#include "server/http/server.h"
#include "server/tests/chatty_model.h"
#include "server/tests/tls_client.h"

namespace flexllm::server::testing {
namespace {

struct FakeOptions {
  bool small = false;
  bool endless = false;
  HttpOptions http;
};

bool parse(int argc, char** argv, FakeOptions& options) {
  HttpOptions& http = options.http;
  http.port = 0;
  for (int i = 1; i < argc; ++i) {
    const std::string option = argv[i];
    if (option == "--small" || option == "--endless") {
      (option == "--small" ? options.small : options.endless) = true;
      continue;
    }
    if (i + 1 == argc) return false;
    const std::string value = argv[++i];
    if (option == "--tls") {
      const auto files = make_certificate(value, "own");
      http.tls_certificate = files.certificate;
      http.tls_key = files.key;
    } else if (option == "--unix") {
      http.port.reset();
      http.unix_socket = value;
    } else if (option == "--connections") {
      http.max_connections = static_cast<uint32_t>(std::stoul(value));
    } else if (option == "--patience") {
      const std::chrono::milliseconds patience(std::stoul(value) * 1000);
      http.idle_timeout = http.body_timeout = http.write_timeout = patience;
      http.handshake_timeout = patience;
    } else {
      return false;
    }
  }
  return true;
}

int run(const FakeOptions& fake) {
  FakeModel model = chatty_model();
  model.bias['"'] = 0.5f;  // or strings of JSON would never end
  if (fake.endless) model.bias[FakeText::kEnd] = -1000;
  model.limits.context_length = 2048;
  model.limits.pages = 2048;
  model.limits.max_prefill_rows = 64;
  model.limits.max_batch = 8;
  ServiceOptions options;
  options.version = "fake";
  if (fake.small) options.max_choices = 4;
  if (const char* key = std::getenv("FLEXLLM_API_KEY")) options.api_keys = {key};
  auto service = std::make_shared<Service>(options);
  auto card = std::make_shared<FakeCard>();
  card->launch_ms = fake.small ? 0 : (fake.endless ? 50 : 2);
  service->serve({"fake", std::make_shared<FakeText>(), {}, "a fake card", true},
                 std::make_unique<FakeBackend>(model, card), {});
  const auto server = HttpServer::start(fake.http, service);
  if (!server) {
    std::fprintf(stderr, "%s\n", server.error().c_str());
    return 1;
  }
  std::printf("%u\n", (*server)->port());
  std::fflush(stdout);
  while (std::getchar() != EOF) {
  }
  return 0;
}

}  // namespace
}  // namespace flexllm::server::testing

int main(int argc, char** argv) {
  // Who starts it reads one line of its output; a log there would fill the pipe and stop
  // everything.
  spdlog::set_default_logger(spdlog::stderr_color_mt("fake"));
  spdlog::set_level(spdlog::level::warn);
  flexllm::server::testing::FakeOptions options;
  if (!flexllm::server::testing::parse(argc, argv, options)) {
    std::fprintf(stderr, "%s: wrong options\n", argv[0]);
    return 2;
  }
  return flexllm::server::testing::run(options);
}
