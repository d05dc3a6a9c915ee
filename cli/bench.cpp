// `flexllm bench`: sends a load to an OpenAI-style server and reports how it was answered.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <fstream>
#include <memory>
#include <nlohmann/json.hpp>

#include "cli/bench/generator.h"
#include "cli/bench/report.h"
#include "cli/exit_code.h"
#include "cli/http_client.h"
#include "cli/option_table.h"
#include "cli/progress.h"
#include "cli/subcommand.h"

namespace flexllm::cli {
namespace {

struct BenchOptions {
  std::string url = "http://127.0.0.1:8080";
  std::filesystem::path ca_file;
  std::string model;
  std::string endpoint = "chat";
  std::string fields;
  std::string prompt_tokens = "128";
  std::string output_tokens = "128";
  std::filesystem::path prompts;
  std::optional<float> rate;
  uint64_t seed = 1;
  bench::LoadOptions load;
  std::vector<std::string> slo;
  std::filesystem::path svg;
  bool json = false;
  OptionTable table;
};

template <class T>
T value_or_usage(const char* option, tl::expected<T, std::string> parsed) {
  if (!parsed) throw Failure(kUsage, fmt::format("--{} must be {}", option, parsed.error()));
  return std::move(*parsed);
}

// The name of the first model that is served.
std::string served_model(const BenchOptions& options) {
  HttpClient client(options.load.url, options.load.api_key);
  const auto models = client.get("/v1/models");
  if (!models) {
    const bool refused = models.error().kind == ClientError::Kind::refused;
    throw Failure(refused ? kRefused : kNetwork,
                  fmt::format("{}/v1/models: {}", options.url, models.error().message));
  }
  const auto data = models->find("data");
  if (data != models->end() && data->is_array() && !data->empty()) {
    const auto id = data->front().find("id");
    if (id != data->front().end() && id->is_string()) return *id;
  }
  throw Failure(kUsage, fmt::format("{} names no model; give --model", options.url));
}

bench::WorkloadOptions workload_of(BenchOptions& options) {
  bench::WorkloadOptions out;
  if (options.endpoint != "chat" && options.endpoint != "completions") {
    throw Failure(kUsage, "--endpoint must be chat or completions");
  }
  if (options.endpoint == "completions") out.endpoint = bench::Endpoint::completions;
  out.prompt_tokens = value_or_usage("prompt-tokens", bench::Lengths::parse(options.prompt_tokens));
  out.output_tokens = value_or_usage("output-tokens", bench::Lengths::parse(options.output_tokens));
  out.fields = value_or_usage("fields", bench::parse_fields(options.fields));
  out.seed = options.seed;
  if (options.prompts.empty()) return out;
  if (options.table.given("prompt-tokens")) {
    throw Failure(kUsage, "--prompts and --prompt-tokens exclude each other");
  }
  auto prompts = bench::read_prompts(options.prompts, out.endpoint);
  if (!prompts) throw Failure(kUsage, prompts.error());
  out.prompts = std::move(*prompts);
  return out;
}

void check_load(BenchOptions& options) {
  auto url = parse_url(options.url, options.ca_file);
  if (!url) throw Failure(kUsage, fmt::format("--url {}: {}", options.url, url.error()));
  options.load.url = std::move(*url);
  const OptionTable& table = options.table;
  if (options.rate && table.given("concurrency")) {
    throw Failure(kUsage, "--rate (open loop) and --concurrency (closed loop) exclude each other");
  }
  if (options.rate) options.load.rate = *options.rate;
  if (options.load.duration.count() > 0 && !table.given("requests")) {
    options.load.requests = std::numeric_limits<uint64_t>::max();
  }
}

// Without a single answer there is nothing to report but why.
[[noreturn]] void give_up(const std::vector<bench::Outcome>& outcomes, const std::string& url) {
  const bench::Outcome& first = *std::find_if(
      outcomes.begin(), outcomes.end(),
      [](const bench::Outcome& one) { return one.end == bench::Outcome::End::failed; });
  const bool answered = first.kind.starts_with("http") || first.kind.starts_with("error");
  throw Failure(answered ? kRefused : kNetwork,
                fmt::format("no request of the warm-up was answered by {}: {}{}{}", url, first.kind,
                            first.message.empty() ? "" : ": ", first.message));
}

int bench_server(BenchOptions& options) {
  options.table.resolve();
  if (options.table.wants_markdown()) {
    fmt::print("{}", options.table.markdown());
    return kOk;
  }
  check_load(options);
  bench::WorkloadOptions workload = workload_of(options);
  bench::Report report;
  report.slo = value_or_usage("slo", bench::Slo::parse(options.slo));
  workload.model = options.model.empty() ? served_model(options) : options.model;

  report.url = options.url;
  report.model = workload.model;
  report.prompts =
      options.prompts.empty() ? workload.prompt_tokens.text() : options.prompts.filename().string();
  report.outputs = workload.output_tokens.text();
  report.seed = workload.seed;
  report.fields = workload.fields;
  report.load = options.load;
  const bench::Workload requests(std::move(workload));
  report.path = requests.path();

  Progress progress("measuring");
  report.measurement =
      measure(options.load, requests, [&progress](double share) { progress.show(share); });
  const auto& measured = report.measurement.outcomes;
  if (measured.empty() && report.measurement.interrupted) {
    throw Failure(kInterrupted, "interrupted before anything was measured");
  }
  if (measured.empty()) give_up(report.measurement.warm_up, options.url);

  if (options.json) {
    fmt::print("{}\n", to_json(report).dump(2));
  } else {
    fmt::print("{}", to_text(report));
  }
  if (!options.svg.empty()) {
    std::ofstream out(options.svg);
    out << to_svg(report) << std::flush;
    if (!out) throw Failure(kFailed, fmt::format("cannot write {}", options.svg.string()));
  }
  return report.measurement.interrupted ? kInterrupted : kOk;
}

void declare(BenchOptions& options) {
  OptionTable& table = options.table;
  constexpr std::chrono::milliseconds kMoment{1};
  table.group("Server");
  table.add("url", options.url, "Server to send the load to: http://, https:// or unix:PATH");
  table.add("ca-file", options.ca_file,
            "PEM certificates to trust for https; empty: those of the system");
  table.add("api-key", options.load.api_key,
            "API key; others can see a command line, so use the variable");
  table.add("model", options.model, "Model to ask for; empty: the first one that is served");
  table.add("endpoint", options.endpoint, "'chat' or 'completions'");
  table.add("fields", options.fields,
            "JSON object merged into each request; null takes a field away");
  table.add("timeout", options.load.timeout, kMoment, "For a request, from when it is sent");

  table.group("Load");
  table.add("concurrency", options.load.concurrency, 1, 100000,
            "Closed loop: requests that run at once");
  table.add("rate", options.rate, 0.001f, 100000.0f,
            "Open loop: requests that arrive in a second, as a Poisson process");
  table.add("requests", options.load.requests, 1, 1u << 30,
            "Requests that are measured; with --duration and without this: no limit");
  table.add("duration", options.load.duration, std::chrono::milliseconds(0),
            "After this no request is begun; 0: no limit");
  table.add("warmup", options.load.warm_up, 0, 1u << 20, "Requests before those, left out");

  table.group("Requests");
  table.add("prompt-tokens", options.prompt_tokens,
            "N, 'uniform:LOW-HIGH' or 'lognormal:MEDIAN,SIGMA': words of a made-up prompt");
  table.add("output-tokens", options.output_tokens, "The same of the answer, as max_tokens");
  table.add("prompts", options.prompts, "File of prompts, one JSON value a line");
  table.add("seed", options.seed, 0, std::numeric_limits<uint64_t>::max(),
            "Of lengths, prompts and arrivals");

  table.group("Report");
  table.add("slo", options.slo, "Limits for the goodput: ttft=0.5s,itl=50ms,gap=...,e2e=...");
  table.add("json", options.json, "Print JSON");
  table.add("svg", options.svg, "Also draw latencies and throughput into this file");
}

}  // namespace

Run add_bench(CLI::App& app) {
  auto options = std::make_shared<BenchOptions>();
  declare(*options);
  options->table.attach(app);
  return [options] { return bench_server(*options); };
}

}  // namespace flexllm::cli
