// How many tokens a second the generator of `flexllm bench` takes, by the number of streams: a
// server in a thread of its own writes one chunk a write, to each stream in turn, and computes
// nothing.
#include <benchmark/benchmark.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstdio>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "cli/bench/generator.h"
#include "cli/bench/lengths.h"
#include "cli/bench/statistics.h"
#include "cli/bench/workload.h"

namespace {

namespace bench = flexllm::cli::bench;

constexpr uint32_t kTokens = 256;

std::string chunked(const std::string& data) {
  char size[20];
  std::snprintf(size, sizeof(size), "%zx\r\n", data.size());
  return size + data + "\r\n";
}

void write_all(int socket, const std::string& bytes) {
  for (size_t at = 0; at < bytes.size();) {
    const ssize_t wrote = send(socket, &bytes[at], bytes.size() - at, MSG_NOSIGNAL);
    if (wrote <= 0) return;
    at += static_cast<size_t>(wrote);
  }
}

// Answers `rounds` requests on each of `streams` connections, all streams in step.
class Server {
 public:
  Server(uint32_t streams, uint64_t rounds) {
    listener_ = socket(AF_INET, SOCK_STREAM, 0);
    sockaddr_in address = {};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof(address);
    if (bind(listener_, reinterpret_cast<sockaddr*>(&address), size) != 0 ||
        listen(listener_, 1024) != 0 ||
        getsockname(listener_, reinterpret_cast<sockaddr*>(&address), &size) != 0) {
      throw std::runtime_error("no port to listen on");
    }
    port = std::to_string(ntohs(address.sin_port));
    thread_ = std::thread([this, streams, rounds] { serve(streams, rounds); });
  }
  ~Server() {
    thread_.join();
    close(listener_);
  }
  std::string port;

 private:
  void serve(uint32_t streams, uint64_t rounds) {
    const std::string head =
        "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
    const std::string token = chunked(
        "data: {\"id\":\"chatcmpl-0123456789abcdef01234567\",\"object\":\"chat.completion.chunk\","
        "\"created\":1700000000,\"model\":\"SmolLM2-135M-Instruct\",\"choices\":[{\"index\":0,"
        "\"delta\":{\"content\":\" token\"},\"logprobs\":null,\"finish_reason\":null}]}\n\n");
    const std::string end =
        chunked("data: {\"choices\":[],\"usage\":{\"prompt_tokens\":8,\"completion_tokens\":" +
                std::to_string(kTokens) + "}}\n\n") +
        chunked("data: [DONE]\n\n") + "0\r\n\r\n";
    std::vector<int> sockets;
    for (uint32_t i = 0; i < streams; ++i) {
      sockets.push_back(accept(listener_, nullptr, nullptr));
      const int on = 1;
      setsockopt(sockets.back(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    }
    for (uint64_t round = 0; round < rounds; ++round) {
      for (const int socket : sockets) read_request(socket);
      for (const int socket : sockets) write_all(socket, head);
      for (uint32_t i = 0; i < kTokens; ++i) {
        for (const int socket : sockets) write_all(socket, token);
      }
      for (const int socket : sockets) write_all(socket, end);
    }
    for (const int socket : sockets) close(socket);
  }

  // Requests are short, and one follows the other's answer: the last byte ends the JSON.
  static void read_request(int socket) {
    char bytes[4096];
    ssize_t got = 0;
    do {
      got = recv(socket, bytes, sizeof(bytes), 0);
    } while (got > 0 && bytes[got - 1] != '}');
  }

  int listener_ = -1;
  std::thread thread_;
};

void streams_at_once(benchmark::State& state) {
  const auto streams = static_cast<uint32_t>(state.range(0));
  constexpr uint64_t kRounds = 4;
  bench::WorkloadOptions options;
  options.model = "m";
  options.prompt_tokens = bench::Lengths::parse("8").value();
  options.output_tokens = bench::Lengths::parse(std::to_string(kTokens)).value();
  const bench::Workload workload(std::move(options));
  uint64_t tokens = 0;
  double busy = 0;
  for (auto _ : state) {
    const Server server(streams, kRounds);
    bench::LoadOptions load;
    load.url = {"127.0.0.1", server.port, ""};
    load.concurrency = streams;
    load.requests = streams * kRounds;
    load.warm_up = 0;
    const auto measurement = bench::measure(load, workload, nullptr);
    const auto results = bench::results_of(measurement, {});
    if (results.done != load.requests) state.SkipWithError("requests failed");
    tokens += results.output_tokens;
    busy += measurement.busy;
  }
  state.counters["tokens/s"] =
      benchmark::Counter(static_cast<double>(tokens), benchmark::Counter::kIsRate);
  state.counters["busy"] = busy / static_cast<double>(state.iterations());
}
BENCHMARK(streams_at_once)->Arg(1)->Arg(16)->Arg(256)->UseRealTime()->Unit(benchmark::kMillisecond);

}  // namespace
