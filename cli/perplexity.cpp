// `flexllm perplexity`: how well a model predicts a text: on the card, and in the float model of
// the quantiser, which needs no card.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <cmath>
#include <nlohmann/json.hpp>
#include <optional>

#include "cli/device.h"
#include "cli/evaluation.h"
#include "cli/exit_code.h"
#include "cli/model.h"
#include "cli/option_table.h"
#include "cli/subcommand.h"
#include "quantizer/block_formats/block_formats.h"

namespace flexllm::cli {
namespace {

using quantizer::ScoredWindow;
using Windows = std::span<const ScoredWindow>;

struct PerplexityOptions {
  ModelOptions model;
  std::string model_name;  // the positional argument, which is --model written short
  TextOptions text;
  bool only_float = false;
  bool no_float = false;
  std::string requantize;
  uint32_t threads = 0;
  std::filesystem::path losses;
  bool json = false;
  OptionTable table;
};

// The log-probabilities of one run over the text, and how long it took.
struct Figure {
  std::vector<double> log_probabilities;
  double seconds = 0;
};

// Shows the figure so far, and ends a run that has become meaningless.
class Reporter {
 public:
  Reporter(const char* where, Windows windows, bool quiet) : where_(where), quiet_(quiet) {
    for (const ScoredWindow& window : windows) total_ += window.predictions();
  }
  ~Reporter() {
    if (!quiet_ && figure_.log_probabilities.size() > 0) fmt::print(stderr, "\n");
  }

  void add(std::span<const double> log_probabilities) {
    auto& all = figure_.log_probabilities;
    for (const double value : log_probabilities) {
      if (!std::isfinite(value)) {
        throw Failure(kModel, fmt::format("{}: the probability of token {} is not a number", where_,
                                          all.size()));
      }
      all.push_back(value);
    }
    if (!quiet_) {
      fmt::print(stderr, "\r{}: {} of {} tokens, perplexity {:.4f}", where_, all.size(), total_,
                 perplexity_of(all).value);
    }
  }

  Figure finish() {
    const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - begin_;
    figure_.seconds = seconds.count();
    return figure_;
  }

 private:
  const char* where_;
  const bool quiet_;
  size_t total_ = 0;
  Figure figure_;
  std::chrono::steady_clock::time_point begin_ = std::chrono::steady_clock::now();
};

host::LaunchResult run_launch(server::Backend& backend, const host::Launch& launch) {
  const auto fail = [](const host::DeviceError& error) {
    return Failure(kDevice, fmt::format("{}: {}", host::to_string(error.kind), error.message));
  };
  if (auto started = backend.start(launch); !started) throw fail(started.error());
  auto result = backend.wait(launch.stage);
  if (!result) throw fail(result.error());
  return std::move(*result);
}

std::vector<double> run_window(server::Backend& backend, const ScoredWindow& window,
                               std::span<const host::PageId> pages) {
  const host::EngineLimits& limits = backend.limits();
  const uint32_t chunk = std::min(limits.max_prefill_rows, limits.max_logits_rows);
  const auto length = static_cast<uint32_t>(window.tokens.size());
  std::vector<double> log_probabilities;
  for (uint32_t begin = 0; begin < length; begin += chunk) {
    host::Launch launch;
    launch.stage = host::Stage::prefill;
    launch.sequences = {pages};
    for (uint32_t p = begin; p < std::min(begin + chunk, length); ++p) {
      const bool predicts = p >= window.first_row && p + 1 < length;
      host::Row row;
      row.position = p;
      row.token = window.tokens[p];
      row.outputs.target_logprob = predicts;
      row.target = predicts ? window.tokens[p + 1] : 0;
      launch.rows.push_back(row);
    }
    const host::LaunchResult result = run_launch(backend, launch);
    for (size_t i = 0; i < launch.rows.size(); ++i) {
      if (launch.rows[i].outputs.target_logprob) {
        log_probabilities.push_back(double{result.rows[i].target_logprob});
      }
    }
  }
  return log_probabilities;
}

Figure run_on_card(const PerplexityOptions& options, const host::EngineOptions& engine,
                   Windows windows) {
  LoadedModel loaded = load_model(options.model, engine);
  server::Backend& backend = *loaded.backend;
  const host::EngineLimits& limits = backend.limits();
  if (limits.max_prefill_rows == 0) throw Failure(kDevice, "the accelerator has no prefill kernel");
  const uint32_t window = window_tokens(options.text);
  if (window > limits.context_length) {
    throw Failure(kUsage, fmt::format("--window: the card takes {}", limits.context_length));
  }
  const auto pages =
      backend.pages().allocate((window + limits.page_tokens - 1) / limits.page_tokens);
  if (!pages) throw Failure(kDevice, "the KV cache is smaller than one window");
  Reporter reporter("on the card", windows, options.json);
  for (const ScoredWindow& text : windows) reporter.add(run_window(backend, text, *pages));
  return reporter.finish();
}

Figure run_in_float(const char* where, const PerplexityOptions& options,
                    const formats::Checkpoint& checkpoint, Windows windows) {
  Reporter reporter(where, windows, options.json);
  try {
    quantizer::Workers workers(options.threads);
    const quantizer::FloatModel model(checkpoint, {}, workers);
    quantizer::target_log_probabilities(
        model, windows, [&reporter](std::span<const double> values) { reporter.add(values); });
  } catch (const formats::Error& error) {
    throw Failure(kModel, error.what());
  }
  return reporter.finish();
}

void report(const PerplexityOptions& options, const ModelFile& model,
            const std::optional<Figure>& quantized, const std::optional<Figure>& plain) {
  const Figure& any = quantized ? *quantized : *plain;
  nlohmann::json json = {{"model", model.name},
                         {"protocol", options.text.protocol},
                         {"window", window_tokens(options.text)},
                         {"tokens", any.log_probabilities.size()},
                         {"ppl", nullptr},
                         {"stderr", nullptr},
                         {"ppl_float", nullptr},
                         {"stderr_float", nullptr}};
  if (quantized) {
    const Perplexity figure = perplexity_of(quantized->log_probabilities);
    json.update({{"ppl", figure.value}, {"stderr", figure.error}, {"seconds", quantized->seconds}});
    const std::string scheme = model.packed ? model.packed->info().scheme : options.model.scheme;
    json["scheme"] = options.requantize.empty() ? scheme : options.requantize;
  }
  if (plain) {
    const Perplexity figure = perplexity_of(plain->log_probabilities);
    json.update({{"ppl_float", figure.value},
                 {"stderr_float", figure.error},
                 {"seconds_float", plain->seconds}});
  }
  if (quantized && plain) {
    const Perplexity ratio = ratio_of(quantized->log_probabilities, plain->log_probabilities);
    json.update({{"over_float", ratio.value - 1}, {"over_float_stderr", ratio.error}});
  }
  if (options.json) {
    fmt::print("{}\n", json.dump());
    return;
  }
  fmt::print("{} tokens predicted, {} protocol, windows of {}\n", any.log_probabilities.size(),
             options.text.protocol, window_tokens(options.text));
  const auto line = [&json](const std::string& what, const char* value, const char* error) {
    fmt::print("{:<24} perplexity {:.4f} +- {:.4f}\n", what, json[value].get<double>(),
               json[error].get<double>());
  };
  if (quantized) line(json["scheme"], "ppl", "stderr");
  if (plain) line("float", "ppl_float", "stderr_float");
  if (quantized && plain) {
    fmt::print("over float {:+.2f} % +- {:.2f} % (paired)\n",
               100 * json["over_float"].get<double>(),
               100 * json["over_float_stderr"].get<double>());
  }
}

void check(const PerplexityOptions& options, const ModelFile& model) {
  if (options.only_float && options.no_float) {
    throw Failure(kUsage, "--float and --no-float leave nothing to compute");
  }
  if (!options.requantize.empty()) {
    if (options.only_float) throw Failure(kUsage, "--float computes no --requantize figure");
    if (options.table.given("scheme") || options.table.given("device")) {
      throw Failure(kUsage,
                    "--requantize is computed in float: it has no --scheme and no --device");
    }
  }
  if (model.packed && (options.only_float || !options.requantize.empty())) {
    throw Failure(kUsage, fmt::format("--{}: a packed model has no float form; give the checkpoint "
                                      "that it was made of",
                                      options.only_float ? "float" : "requantize"));
  }
}

std::optional<quantizer::BlockFormat> block_format_of(const PerplexityOptions& options) {
  if (options.requantize.empty()) return std::nullopt;
  try {
    return quantizer::parse_block_format(options.requantize);
  } catch (const std::invalid_argument& error) {
    throw Failure(kUsage, std::string("--requantize: ") + error.what());
  }
}

int perplexity(PerplexityOptions& options) {
  options.table.resolve();
  if (!options.model_name.empty()) options.model.model = options.model_name;
  if (options.model.model.empty()) throw Failure(kUsage, "MODEL is required");
  const auto format = block_format_of(options);
  const ModelFile model = open_model(options.model.model);
  check(options, model);
  if (!options.losses.empty()) check_losses_path(options.losses);
  const std::vector<ScoredWindow> windows = windows_of(model, options.text);

  std::optional<Figure> quantized, plain;
  if (format) {
    const quantizer::BlockRoundedCheckpoint rounded(*model.checkpoint, *format,
                                                    quantizer::BlockFormat::q8_0);
    quantized = run_in_float(options.requantize.c_str(), options, rounded, windows);
  } else if (!options.only_float) {
    const host::EngineOptions engine = choose_device(options.model);
    quantized = run_on_card(options, engine, windows);
  }
  if (model.checkpoint && !options.no_float) {
    plain = run_in_float("in float", options, *model.checkpoint, windows);
  }
  if (!options.losses.empty()) {
    save_losses(options.losses, (quantized ? *quantized : *plain).log_probabilities);
  }
  report(options, model, quantized, plain);
  return kOk;
}

}  // namespace

Run add_perplexity(CLI::App& app) {
  auto options = std::make_shared<PerplexityOptions>();
  app.add_option("MODEL", options->model_name, "As --model; 'default': the default model");
  OptionTable& table = options->table;
  add_model_options(table, options->model);
  add_text_options(table, options->text);
  table.group("Figures");
  table.add("float", options->only_float, "Only the checkpoint in binary32; needs no card");
  table.add("no-float", options->no_float, "Leave that figure out");
  table.add("requantize", options->requantize,
            "In place of the card: the checkpoint's weights through a block format of llama.cpp "
            "(q4_0, q4_1, q8_0; embedding and lm_head q8_0), in binary32");
  table.add("threads", options->threads, 0, 1024,
            "Of what is computed in binary32; 0: the processors that the process may use");
  table.add("losses", options->losses,
            "Also write the negative log-probability of every predicted token: binary32, "
            "little-endian, in order; of the checkpoint in binary32 with --float alone");
  table.add("json", options->json, "Report as JSON on stdout");
  table.attach(app);
  return [options] { return perplexity(*options); };
}

}  // namespace flexllm::cli
