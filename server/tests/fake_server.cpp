// The whole server on a fake card, for clients under test: prints its port and serves until killed.
#include <cstdio>
#include <cstdlib>
#include <thread>

#include "server/http_server.h"
#include "server/service.h"
#include "server/tests/chatty_model.h"

int main() {
  using namespace flexllm::server;
  testing::FakeModel model = testing::chatty_model();
  model.limits.context_length = 2048;
  model.limits.pages = 2048;
  model.limits.max_prefill_rows = 64;
  model.limits.max_batch = 8;
  ServiceOptions options;
  options.version = "fake";
  if (const char* key = std::getenv("FLEXLLM_API_KEY")) options.api_keys = {key};
  auto service = std::make_shared<Service>(options);
  auto card = std::make_shared<testing::FakeCard>();
  card->launch_ms = 2;
  service->serve({"fake", std::make_shared<testing::FakeText>(), {}},
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
