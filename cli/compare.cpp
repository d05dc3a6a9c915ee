// `flexllm compare`: how far one model is from another on a text, computed in the float model of
// the quantiser, so without a card. A packed model is rounded there as the kernels round it.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>
#include <numeric>
#include <optional>

#include "cli/drawing.h"
#include "cli/evaluation.h"
#include "cli/exit_code.h"
#include "cli/option_table.h"
#include "cli/progress.h"
#include "cli/subcommand.h"
#include "quantizer/block_formats/block_formats.h"
#include "quantizer/float_model/comparison.h"
#include "quantizer/packing/packed_checkpoint.h"

namespace flexllm::cli {
namespace {

struct CompareOptions {
  std::filesystem::path a, b;
  TextOptions text;
  std::string requantize;
  std::filesystem::path svg;
  uint32_t threads = 0;
  bool json = false;
  OptionTable table;
};

// A model as the float model runs it, with all that it refers to.
class Side {
 public:
  Side(const std::filesystem::path& path, const std::string& block_format,
       quantizer::Workers& workers)
      : file_(open_model(path)), name_(file_.name) {
    const formats::Checkpoint* checkpoint = file_.checkpoint.get();
    quantizer::FloatOptions options;
    if (file_.packed) {
      packed_.emplace(*file_.packed);
      checkpoint = &*packed_;
      options = packed_->float_options();
      name_ += " " + file_.packed->info().scheme;
      if (auto basis = file_.packed->hidden_basis()) {
        const size_t hidden = file_.config().hidden;
        basis_.emplace(hidden, hidden, std::move(basis->matrix));
      }
    }
    if (!block_format.empty()) {
      rounded_.emplace(*checkpoint, quantizer::parse_block_format(block_format),
                       quantizer::BlockFormat::q8_0);
      checkpoint = &*rounded_;
      name_ += " " + block_format;
    }
    model_.emplace(*checkpoint, options, workers);
  }

  const ModelFile& file() const { return file_; }
  const std::string& name() const { return name_; }
  quantizer::ComparedModel compared() const { return {*model_, basis_ ? &*basis_ : nullptr}; }

 private:
  ModelFile file_;
  std::string name_;
  std::optional<quantizer::PackedCheckpoint> packed_;
  std::optional<quantizer::BlockRoundedCheckpoint> rounded_;
  std::optional<quantizer::Matrix> basis_;
  std::optional<quantizer::FloatModel> model_;
};

double mean_of(const std::vector<double>& values) {
  return std::accumulate(values.begin(), values.end(), 0.0) / static_cast<double>(values.size());
}

double error_of_mean(const std::vector<double>& values) {
  const double mean = mean_of(values);
  double squares = 0;
  for (const double value : values) squares += (value - mean) * (value - mean);
  const auto n = static_cast<double>(values.size());
  return n > 1 ? std::sqrt(squares / (n - 1) / n) : 0;
}

// The value that a share of the predictions stays below.
double quantile(std::vector<double> values, double share) {
  const auto at = static_cast<size_t>(share * static_cast<double>(values.size() - 1));
  std::ranges::nth_element(values, values.begin() + static_cast<std::ptrdiff_t>(at));
  return values[at];
}

nlohmann::json to_json(const CompareOptions& options, const Side& a, const Side& b,
                       const quantizer::Comparison& found) {
  const Perplexity ratio = ratio_of(found.log_probabilities_b, found.log_probabilities_a);
  return {
      {"a", a.name()},
      {"b", b.name()},
      {"protocol", options.text.protocol},
      {"window", window_tokens(options.text)},
      {"tokens", found.divergence.size()},
      {"kl", mean_of(found.divergence)},
      {"kl_stderr", error_of_mean(found.divergence)},
      {"kl_median", quantile(found.divergence, 0.5)},
      {"kl_99", quantile(found.divergence, 0.99)},
      {"top1", static_cast<double>(found.same_top) / static_cast<double>(found.divergence.size())},
      {"ppl_a", perplexity_of(found.log_probabilities_a).value},
      {"ppl_b", perplexity_of(found.log_probabilities_b).value},
      {"b_over_a", ratio.value - 1},
      {"b_over_a_stderr", ratio.error},
      {"layer_error", found.layer_error}};
}

// Bars of the layers' errors, and how the divergences of the predictions are spread.
std::string to_svg(const nlohmann::json& report, std::vector<double> divergence) {
  constexpr double kLeft = 60;
  constexpr double kWidth = 1000;
  constexpr double kHeight = 220;
  Drawing drawing;
  double y = 24;
  drawing.text(
      12, y,
      fmt::format("{} against {}", report["b"].get<std::string>(), report["a"].get<std::string>()),
      "font-size=\"15\" font-weight=\"bold\"");
  drawing.text(12, y += 20,
               fmt::format("{} predictions: KL divergence {:.4f} nats, same most likely token "
                           "{:.1f} %, perplexity {:.3f} against {:.3f} (measured, in float)",
                           report["tokens"].get<size_t>(), report["kl"].get<double>(),
                           100 * report["top1"].get<double>(), report["ppl_b"].get<double>(),
                           report["ppl_a"].get<double>()),
               "fill=\"#555\"");
  const auto chart = [&](const std::string& title, const std::vector<double>& values,
                         const auto& about) {
    if (values.empty()) return;
    drawing.text(12, y += 34, title, "font-weight=\"bold\"");
    y += 12;
    const double most = std::max(1e-12, std::ranges::max(values));
    const double step = (kWidth - kLeft - 20) / static_cast<double>(values.size());
    drawing.line(kLeft, y, kWidth - 20, y);
    drawing.line(kLeft, y + kHeight, kWidth - 20, y + kHeight, "#888");
    drawing.text(kLeft - 6, y + 10, fmt::format("{:.3g}", most), "text-anchor=\"end\"");
    drawing.text(kLeft - 6, y + kHeight, "0", "text-anchor=\"end\"");
    for (size_t i = 0; i < values.size(); ++i) {
      const double height = kHeight * values[i] / most;
      const double x = kLeft + step * static_cast<double>(i);
      drawing.bar(x + 1, y + kHeight - height, step - 2, height, "#4c78a8", about(i));
      if (i % std::max<size_t>(1, values.size() / 20) == 0) {
        drawing.text(x + step / 2, y + kHeight + 14, fmt::format("{}", i),
                     "text-anchor=\"middle\" font-size=\"10\"");
      }
    }
    y += kHeight + 16;
  };
  const auto errors = report["layer_error"].get<std::vector<double>>();
  chart(
      "Relative RMS error of the residual stream: 0 behind the embedding, n behind the n-th layer",
      errors, [&](size_t i) { return fmt::format("{}: {:.4f}", i, errors[i]); });
  std::ranges::sort(divergence);
  std::vector<double> percentiles;
  for (size_t percent = 0; percent < 100; ++percent) {
    percentiles.push_back(divergence[percent * (divergence.size() - 1) / 99]);
  }
  percentiles.pop_back();  // the largest hides all others
  chart("KL divergence of a prediction, by percentile (nats)", percentiles,
        [&](size_t i) { return fmt::format("percentile {}: {:.5f}", i, percentiles[i]); });
  return drawing.finish(kWidth, y + 20);
}

void print(const nlohmann::json& report) {
  const auto number = [&report](const char* key) { return report[key].get<double>(); };
  fmt::print("a: {}\nb: {}\n", report["a"].get<std::string>(), report["b"].get<std::string>());
  fmt::print("{} tokens predicted, {} protocol, windows of {}\n", report["tokens"].get<size_t>(),
             report["protocol"].get<std::string>(), report["window"].get<uint32_t>());
  fmt::print("KL divergence (a || b)   {:.5f} +- {:.5f} nats, median {:.5f}, 99 % below {:.4f}\n",
             number("kl"), number("kl_stderr"), number("kl_median"), number("kl_99"));
  fmt::print("same most likely token   {:.2f} %\n", 100 * number("top1"));
  fmt::print("perplexity               {:.4f} and {:.4f}: {:+.2f} % +- {:.2f} % (paired)\n",
             number("ppl_a"), number("ppl_b"), 100 * number("b_over_a"),
             100 * number("b_over_a_stderr"));
  const auto errors = report["layer_error"].get<std::vector<double>>();
  for (size_t i = 0; i < errors.size(); ++i) {
    const std::string place = i == 0 ? "embedding" : fmt::format("layer {}", i - 1);
    fmt::print("residual behind {:<10} relative RMS error {:.5f}\n", place, errors[i]);
  }
}

int compare(CompareOptions& options) {
  options.table.resolve();
  if (options.b.empty()) {
    if (options.requantize.empty()) {
      throw Failure(kUsage, "a second model is required, or --requantize");
    }
    options.b = options.a;
  }
  quantizer::Workers workers(options.threads);
  try {
    const Side a(options.a, "", workers);
    const Side b(options.b, options.requantize, workers);
    if (a.file().tokenizer().tokens != b.file().tokenizer().tokens) {
      throw Failure(kUsage, "the models have different vocabularies");
    }
    const auto windows = windows_of(a.file(), options.text);
    if (window_tokens(options.text) > b.file().config().context_length) {
      throw Failure(kUsage, fmt::format("--window: the second model takes {}",
                                        b.file().config().context_length));
    }
    size_t total = 0;
    for (const quantizer::ScoredWindow& window : windows) total += window.predictions();
    Progress progress("comparing " + b.name() + " with " + a.name());
    const quantizer::Comparison found =
        quantizer::compare(a.compared(), b.compared(), windows, [&](size_t done) {
          progress.show(static_cast<double>(done) / static_cast<double>(total));
        });
    const nlohmann::json report = to_json(options, a, b, found);
    if (!std::isfinite(report["kl"].get<double>())) {
      throw Failure(kModel, "a model's probabilities are not numbers");
    }
    if (!options.svg.empty()) {
      std::ofstream out(options.svg, std::ios::binary);
      out << to_svg(report, found.divergence);
      if (!out.flush()) throw Failure(kFailed, "--svg: cannot write " + options.svg.string());
    }
    if (options.json) {
      fmt::print("{}\n", report.dump());
    } else {
      print(report);
    }
  } catch (const formats::Error& error) {
    throw Failure(kModel, error.what());
  } catch (const std::invalid_argument& error) {
    throw Failure(kUsage, error.what());
  }
  return kOk;
}

}  // namespace

Run add_compare(CLI::App& app) {
  auto options = std::make_shared<CompareOptions>();
  app.add_option("A", options->a, "Packed model, GGUF file, Hugging Face folder, or 'default'")
      ->required();
  app.add_option("B", options->b, "Likewise; absent: A again, with --requantize");
  OptionTable& table = options->table;
  add_text_options(table, options->text);
  table.group("Comparison");
  table.add("requantize", options->requantize,
            "B's weights through a block format of llama.cpp: q4_0, q4_1, q8_0 (embedding and "
            "lm_head q8_0)");
  table.add("threads", options->threads, 0, 1024, "0: the processors that the process may use");
  table.add("svg", options->svg,
            "Draw the errors of the layers and the divergences into this file");
  table.add("json", options->json, "Report as JSON on stdout");
  table.attach(app);
  return [options] { return compare(*options); };
}

}  // namespace flexllm::cli
