#include "cli/bench/report.h"

#include <fmt/format.h>

#include <iterator>
#include <nlohmann/json.hpp>

namespace flexllm::cli::bench {
namespace {

using nlohmann::json;

// Above this the generator may bound what it measures.
constexpr double kTooBusy = 0.7;

json to_json(const Summary& summary) {
  if (summary.count == 0) return nullptr;
  return {{"count", summary.count}, {"mean", summary.mean}, {"p50", summary.p50},
          {"p90", summary.p90},     {"p99", summary.p99},   {"max", summary.max}};
}

double mean(uint64_t sum, uint64_t count) {
  return count > 0 ? static_cast<double>(sum) / static_cast<double>(count) : 0;
}

std::string row(const char* name, std::vector<double> values) {
  const Summary all = summary(std::move(values));
  if (all.count == 0) return fmt::format("{:<24}{:>10}\n", name, "-");
  return fmt::format("{:<24}{:>10}{:>10}{:>10}{:>10}{:>10}\n", name, duration_text(all.p50),
                     duration_text(all.p90), duration_text(all.p99), duration_text(all.mean),
                     duration_text(all.max));
}

}  // namespace

std::string load_text(const Report& report) {
  const LoadOptions& load = report.load;
  return fmt::format("{}; prompts {}, answers {}, seed {}",
                     load.rate
                         ? fmt::format("open loop, {:g} requests/s arrive (Poisson)", *load.rate)
                         : fmt::format("closed loop, {} at once", load.concurrency),
                     report.prompts, report.outputs, report.seed);
}

std::string counting_text(const Results& results) {
  if (results.with_usage == results.done) return "tokens as the server counts them (usage)";
  if (results.with_usage == 0) {
    return "tokens counted as chunks, for the server sent no usage: a chunk may hold several";
  }
  return fmt::format("tokens as the server counts them (usage) in {} of {} answers, else as chunks",
                     results.with_usage, results.done);
}

std::string to_text(const Report& report) {
  const Results results = results_of(report.measurement, report.slo);
  std::string out;
  const auto add = [&out](const std::string& line) { out += line + "\n"; };
  add(fmt::format("{}{}, model {}", report.url, report.path, report.model));
  add(load_text(report));
  add(fmt::format(
      "{} done, {} failed{} in {}{}; warm-up of {} left out", results.done, results.failed,
      results.unfinished > 0 ? fmt::format(", {} unfinished", results.unfinished) : "",
      duration_text(results.seconds), report.measurement.interrupted ? " (interrupted)" : "",
      report.measurement.warm_up.size()));
  for (const auto& [kind, failures] : results.failures) {
    add(fmt::format("  failed {} x {}{}{}", failures.count, kind,
                    failures.example.empty() ? "" : ": ", failures.example));
  }
  if (results.done == 0) return out;
  add("");
  add(fmt::format("{:<24}{:>10}{:>10}{:>10}{:>10}{:>10}", "", "p50", "p90", "p99", "mean", "max"));
  out += row("time to first token", results.ttft);
  out += row("inter-token latency", results.itl);
  out += row("gap between chunks", results.gap);
  out += row("end to end", results.e2e);
  add("");
  add(fmt::format("throughput  {:.1f} output tokens/s, {:.1f} prompt tokens/s, {:.3f} requests/s",
                  results.per_second(results.output_tokens),
                  results.per_second(results.prompt_tokens), results.per_second(results.done)));
  if (!report.slo.empty()) {
    add(fmt::format("goodput     {:.3f} requests/s within {}: {} of {}",
                    results.per_second(results.good), report.slo.text(), results.good,
                    results.done + results.failed));
  }
  add(fmt::format(
      "tokens      {:.1f} a prompt, {:.1f} an answer ({:.1f} asked for), {:.2f} a chunk",
      mean(results.prompt_tokens, results.done), mean(results.output_tokens, results.done),
      mean(results.asked_tokens, results.done), mean(results.output_tokens, results.chunks)));
  add("            " + counting_text(results));
  add(fmt::format("generator   busy {:.0f} % of the time; latest request sent {} after its time{}",
                  100 * report.measurement.busy, duration_text(results.latest),
                  report.measurement.busy > kTooBusy
                      ? "\n            this is much: it may bound what it measures"
                      : ""));
  return out;
}

json to_json(const Report& report) {
  const Measurement& measurement = report.measurement;
  const Results results = results_of(measurement, report.slo);
  const LoadOptions& load = report.load;
  json failures = json::object();
  for (const auto& [kind, some] : results.failures) {
    failures[kind] = {{"count", some.count}, {"example", some.example}};
  }
  json slo = nullptr;
  json goodput = nullptr;
  if (!report.slo.empty()) {
    slo = json::object();
    const auto add = [&slo](const char* name, const std::optional<double>& limit) {
      if (limit) slo[name] = *limit;
    };
    add("ttft", report.slo.ttft);
    add("itl", report.slo.itl);
    add("gap", report.slo.gap);
    add("e2e", report.slo.e2e);
    goodput = {{"requests", results.good},
               {"requests_per_s", results.per_second(results.good)},
               {"share", mean(results.good, results.done + results.failed)}};
  }
  return {
      {"load",
       {{"url", report.url},
        {"path", report.path},
        {"model", report.model},
        {"concurrency", load.rate ? json(nullptr) : json(load.concurrency)},
        {"rate", load.rate ? json(*load.rate) : json(nullptr)},
        {"prompts", report.prompts},
        {"outputs", report.outputs},
        {"fields", report.fields},
        {"seed", report.seed},
        {"warm_up", measurement.warm_up.size()}}},
      {"interrupted", measurement.interrupted},
      {"seconds", results.seconds},
      {"requests",
       {{"done", results.done}, {"failed", results.failed}, {"unfinished", results.unfinished}}},
      {"failures", failures},
      {"ttft_s", to_json(summary(results.ttft))},
      {"itl_s", to_json(summary(results.itl))},
      {"gap_s", to_json(summary(results.gap))},
      {"e2e_s", to_json(summary(results.e2e))},
      {"prompt_tokens", results.prompt_tokens},
      {"output_tokens", results.output_tokens},
      {"asked_output_tokens", results.asked_tokens},
      {"chunks", results.chunks},
      {"requests_with_usage", results.with_usage},
      {"output_tokens_per_s", results.per_second(results.output_tokens)},
      {"prompt_tokens_per_s", results.per_second(results.prompt_tokens)},
      {"requests_per_s", results.per_second(results.done)},
      {"slo", slo},
      {"goodput", goodput},
      {"generator", {{"busy", measurement.busy}, {"latest_s", results.latest}}}};
}

}  // namespace flexllm::cli::bench
