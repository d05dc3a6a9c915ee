// What the server itself costs: scheduler, JSON, HTTP and sockets on a card that answers at once,
// or after a time in which it computes nothing. The clients run in the same process, one thread
// each, and read without looking at what they read.
#include <benchmark/benchmark.h>
#include <spdlog/spdlog.h>
#include <sys/resource.h>

#include <array>
#include <thread>

#include "server/tests/http_harness.h"

namespace flexllm::server::testing {
namespace {

constexpr uint32_t kContext = 4096;
constexpr uint32_t kTokens = 2000;  // of a stream

// Each row's likeliest token is 'a'.
class InstantBackend final : public Backend {
 public:
  explicit InstantBackend(std::chrono::microseconds step) : step_(step), pages_(limits_.pages) {
    for (uint32_t i = 0; i < ids_.size(); ++i) {
      ids_[i] = 'a' + i;
      logits_[i] = -static_cast<float>(i);
    }
  }
  const host::EngineLimits& limits() const override { return limits_; }
  host::PageAllocator& pages() override { return pages_; }
  tl::expected<void, host::DeviceError> start(const host::Launch& launch) override {
    host::LaunchResult& result = launch.stage == host::Stage::decode ? decode_ : prefill_;
    host::RowOutput output;
    output.argmax = ids_[0];
    output.max = logits_[0];
    output.top_ids = ids_;
    output.top_logits = logits_;
    result.rows.assign(launch.rows.size(), output);
    ends_ = std::chrono::steady_clock::now() + step_;
    return {};
  }
  bool finished(host::Stage) const override { return std::chrono::steady_clock::now() >= ends_; }
  tl::expected<host::LaunchResult, host::DeviceError> wait(host::Stage stage) override {
    if (step_.count() > 0) std::this_thread::sleep_until(ends_);
    return stage == host::Stage::decode ? decode_ : prefill_;
  }
  tl::expected<std::vector<float>, host::DeviceError> logits(host::Stage, uint32_t) override {
    return std::vector<float>(limits_.vocab);
  }
  tl::expected<std::vector<std::byte>, host::DeviceError> read_page(host::PageId) override {
    return std::vector<std::byte>(1);
  }
  tl::expected<void, host::DeviceError> write_page(host::PageId,
                                                   std::span<const std::byte>) override {
    return {};
  }
  tl::expected<void, host::DeviceError> recover() override { return {}; }
  std::shared_ptr<const host::DeviceTelemetry> telemetry() const override {
    return std::make_shared<host::DeviceTelemetry>();
  }

 private:
  const host::EngineLimits limits_{.max_prefill_rows = 256,
                                   .max_batch = 16,
                                   .max_logits_rows = 16,
                                   .context_length = kContext,
                                   .page_tokens = 64,
                                   .pages = 16 * kContext / 64,
                                   .layers = 1,
                                   .hidden = 8,
                                   .vocab = 300};
  const std::chrono::microseconds step_;
  std::chrono::steady_clock::time_point ends_{};
  host::PageAllocator pages_;
  std::array<uint32_t, 16> ids_{};
  std::array<float, 16> logits_{};
  host::LaunchResult decode_;
  host::LaunchResult prefill_;
};

struct InstantServer : TestServer {
  explicit InstantServer(std::chrono::microseconds step = {})
      : TestServer({}, {}, {}, {}, /*loaded=*/false) {
    spdlog::set_level(spdlog::level::warn);
    service->serve({"fake", text, {}}, std::make_unique<InstantBackend>(step), {});
  }
};

std::string request(uint32_t tokens) {
  return Client::post_text(kChat, R"({"messages":[{"role":"user","content":"x"}],"stream":true,)"
                                  R"("temperature":0,"ignore_eos":true,"max_tokens":)" +
                                      std::to_string(tokens) + "}");
}

double cpu_seconds(int who) {
  rusage usage{};
  getrusage(who, &usage);
  const auto seconds = [](const timeval& time) {
    return static_cast<double>(time.tv_sec) + 1e-6 * static_cast<double>(time.tv_usec);
  };
  return seconds(usage.ru_utime) + seconds(usage.ru_stime);
}

// Tokens a second over so many connections, with launches of so many microseconds, and the server's
// own processor time for each token.
void BM_Streams(benchmark::State& state) {
  InstantServer server{std::chrono::microseconds(state.range(1))};
  const auto streams = static_cast<size_t>(state.range(0));
  std::vector<std::unique_ptr<Client>> clients;
  for (size_t i = 0; i < streams; ++i) clients.push_back(std::make_unique<Client>(server));
  clients.front()->send(request(kTokens));
  const std::string whole = clients.front()->read().body;
  size_t events = 0;
  for (size_t at = 0; (at = whole.find("\"content\":\"a\"", at)) != std::string::npos; ++at)
    ++events;
  if (events != kTokens) state.SkipWithError("not an event for each token");
  double server_s = 0;
  for (auto _ : state) {
    std::atomic<double> clients_s{0};
    const double begin = cpu_seconds(RUSAGE_SELF);
    std::vector<std::thread> threads;
    for (auto& client : clients) {
      threads.emplace_back([&] {
        client->send(request(kTokens));
        if (!client->skip_until("data: [DONE]\n\n\r\n0\r\n\r\n")) std::abort();
        clients_s += cpu_seconds(RUSAGE_THREAD);
      });
    }
    for (auto& thread : threads) thread.join();
    server_s += cpu_seconds(RUSAGE_SELF) - begin - clients_s;
  }
  const auto tokens =
      static_cast<double>(state.iterations()) * static_cast<double>(streams) * kTokens;
  state.counters["tokens/s"] = benchmark::Counter(tokens, benchmark::Counter::kIsRate);
  state.counters["server_us/token"] = server_s / tokens * 1e6;
}
BENCHMARK(BM_Streams)
    ->ArgNames({"streams", "launch_us"})
    ->Args({1, 0})
    ->Args({4, 0})
    ->Args({16, 0})
    ->Args({16, 1000})
    ->UseRealTime()
    ->Unit(benchmark::kMillisecond);

// From the request to its first token, through the scheduler alone and through everything.
void BM_FirstTokenOfTheScheduler(benchmark::State& state) {
  const auto text = std::make_shared<FakeText>();
  Scheduler scheduler(std::make_unique<InstantBackend>(std::chrono::microseconds(0)), text,
                      std::make_shared<Metrics>(), {});
  for (auto _ : state) {
    GenerationRequest request;
    request.prompts = {text->encode("x", true)};
    request.max_tokens = 1;
    request.sampling.temperature = 0;
    Reader(*scheduler.submit(std::move(request))).read_all();
  }
}
BENCHMARK(BM_FirstTokenOfTheScheduler)->UseRealTime()->Unit(benchmark::kMicrosecond);

void BM_FirstTokenOfTheServer(benchmark::State& state) {
  InstantServer server;
  Client client(server);
  const std::string bytes = request(1);
  for (auto _ : state) {
    client.send(bytes);
    if (!client.skip_until("data: [DONE]\n\n\r\n0\r\n\r\n")) std::abort();
  }
}
BENCHMARK(BM_FirstTokenOfTheServer)->UseRealTime()->Unit(benchmark::kMicrosecond);

}  // namespace
}  // namespace flexllm::server::testing
