// The whole server on a fake card, for clients under test: prints its port and serves until its
// input ends. `server_fake --small`: a card that answers at once, and few choices. `--endless`: one
// that is slow and whose model never ends by itself.
#include <spdlog/sinks/stdout_color_sinks.h>
#include <spdlog/spdlog.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <thread>

#include "server/api/service.h"
#include "server/http/server.h"
#include "server/tests/chatty_model.h"

int main(int argc, char** argv) {
  using namespace flexllm::server;
  // Who starts it reads one line of its output; a log there would fill the pipe and stop
  // everything.
  spdlog::set_default_logger(spdlog::stderr_color_mt("fake"));
  spdlog::set_level(spdlog::level::warn);
  testing::FakeModel model = testing::chatty_model();
  model.bias['"'] = 0.5f;  // or strings of JSON would never end
  model.limits.context_length = 2048;
  model.limits.pages = 2048;
  model.limits.max_prefill_rows = 64;
  model.limits.max_batch = 8;
  ServiceOptions options;
  options.version = "fake";
  const auto asked = [&](const char* option) {
    return argc > 1 && std::strcmp(argv[1], option) == 0;
  };
  const bool small = asked("--small");
  if (small) options.max_choices = 4;
  if (const char* key = std::getenv("FLEXLLM_API_KEY")) options.api_keys = {key};
  auto service = std::make_shared<Service>(options);
  auto card = std::make_shared<testing::FakeCard>();
  card->launch_ms = small ? 0 : 2;
  if (asked("--endless")) {
    card->launch_ms = 50;
    model.bias[testing::FakeText::kEnd] = -1000;
  }
  service->serve({"fake", std::make_shared<testing::FakeText>(), {}, "a fake card", true},
                 std::make_unique<testing::FakeBackend>(model, card), {});
  HttpOptions http;
  http.port = 0;
  auto server = HttpServer::start(http, service);
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
