// `flexllm perplexity`: how well a model on the card predicts a text.
//
// The text is tokenised as a whole and cut into windows without overlap; in each window every token
// but the first is predicted from those before it (the protocol of the GPTQ papers and of most
// WikiText-2 tables).
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <cmath>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>

#include "cli/device.h"
#include "cli/exit_code.h"
#include "cli/model.h"
#include "cli/option_table.h"
#include "cli/subcommand.h"

namespace flexllm::cli {
namespace {

struct PerplexityOptions {
  ModelOptions model;
  std::string model_name;  // the positional argument, which is --model written short
  std::filesystem::path text;
  uint32_t tokens = 0;
  uint32_t window = 2048;
  bool json = false;
  OptionTable table;
};

// Mean and spread of the negative log-probabilities.
struct Sum {
  uint64_t count = 0;
  double total = 0;
  double squares = 0;

  void add(double nll) {
    ++count;
    total += nll;
    squares += nll * nll;
  }
  double perplexity() const { return std::exp(total / static_cast<double>(count)); }
  // Standard error of the perplexity: that of the mean, carried through exp.
  double standard_error() const {
    const auto n = static_cast<double>(count);
    const double mean = total / n;
    const double variance = std::max(0.0, squares / n - mean * mean);
    return perplexity() * std::sqrt(variance / n);
  }
};

std::string read_text(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) throw Failure(kUsage, "--text: cannot read " + path.string());
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

host::LaunchResult run_launch(server::Backend& backend, const host::Launch& launch) {
  const auto fail = [](const host::DeviceError& error) {
    return Failure(kDevice, fmt::format("{}: {}", host::to_string(error.kind), error.message));
  };
  if (auto started = backend.start(launch); !started) throw fail(started.error());
  auto result = backend.wait(launch.stage);
  if (!result) throw fail(result.error());
  return std::move(*result);
}

void add_window(server::Backend& backend, std::span<const uint32_t> tokens,
                std::span<const host::PageId> pages, Sum& sum) {
  const host::EngineLimits& limits = backend.limits();
  const uint32_t chunk = std::min(limits.max_prefill_rows, limits.max_logits_rows);
  const auto length = static_cast<uint32_t>(tokens.size());
  for (uint32_t begin = 0; begin < length; begin += chunk) {
    host::Launch launch;
    launch.stage = host::Stage::prefill;
    launch.sequences = {pages};
    for (uint32_t p = begin; p < std::min(begin + chunk, length); ++p) {
      host::Row row;
      row.position = p;
      row.token = tokens[p];
      row.outputs.target_logprob = p + 1 < length;
      row.target = p + 1 < length ? tokens[p + 1] : 0;
      launch.rows.push_back(row);
    }
    const host::LaunchResult result = run_launch(backend, launch);
    for (size_t i = 0; i < launch.rows.size(); ++i) {
      if (launch.rows[i].outputs.target_logprob) sum.add(-double{result.rows[i].target_logprob});
    }
  }
}

int perplexity(PerplexityOptions& options) {
  options.table.resolve();
  if (!options.model_name.empty()) options.model.model = options.model_name;
  if (options.text.empty()) throw Failure(kUsage, "--text is required");
  const std::string text = read_text(options.text);
  const host::EngineOptions engine = choose_device(options.model);
  LoadedModel loaded = load_model(options.model, engine);
  server::Backend& backend = *loaded.backend;
  const host::EngineLimits& limits = backend.limits();
  if (limits.max_prefill_rows == 0) throw Failure(kDevice, "the accelerator has no prefill kernel");
  if (options.window < 2 || options.window > limits.context_length) {
    throw Failure(kUsage, fmt::format("--window must lie in 2..{}", limits.context_length));
  }

  std::vector<uint32_t> tokens = loaded.served.text->encode(text, true);
  if (options.tokens != 0 && tokens.size() > options.tokens) tokens.resize(options.tokens);
  if (tokens.size() < 2) throw Failure(kUsage, "--text: a perplexity needs two tokens");
  const uint32_t page_count = (options.window + limits.page_tokens - 1) / limits.page_tokens;
  const auto pages = backend.pages().allocate(page_count);
  if (!pages) throw Failure(kDevice, "the KV cache is smaller than one window");

  Sum sum;
  const auto begin = std::chrono::steady_clock::now();
  for (size_t at = 0; at + 1 < tokens.size(); at += options.window) {
    const size_t length = std::min<size_t>(options.window, tokens.size() - at);
    add_window(backend, std::span(tokens).subspan(at, length), *pages, sum);
    if (!options.json) {
      fmt::print(stderr, "\r{} of {} tokens, perplexity {:.4f}", at + length, tokens.size(),
                 sum.perplexity());
    }
  }
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - begin;
  if (options.json) {
    const nlohmann::json report = {{"model", loaded.served.name},    {"ppl", sum.perplexity()},
                                   {"stderr", sum.standard_error()}, {"tokens", sum.count},
                                   {"window", options.window},       {"seconds", seconds.count()}};
    fmt::print("{}\n", report.dump());
  } else {
    fmt::print("\nperplexity {:.4f} +- {:.4f} over {} tokens (windows of {})\n", sum.perplexity(),
               sum.standard_error(), sum.count, options.window);
  }
  return kOk;
}

}  // namespace

Run add_perplexity(CLI::App& app) {
  auto options = std::make_shared<PerplexityOptions>();
  app.add_option("MODEL", options->model_name, "As --model; 'default': the default model");
  OptionTable& table = options->table;
  add_model_options(table, options->model);
  table.group("Text");
  table.add("text", options->text, "File to predict");
  table.add("tokens", options->tokens, 0, UINT32_MAX, "Use the first so many; 0: all");
  table.add("window", options->window, 2, UINT32_MAX, "Tokens of a window");
  table.add("json", options->json, "Report as JSON on stdout");
  table.attach(app);
  return [options] { return perplexity(*options); };
}

}  // namespace flexllm::cli
