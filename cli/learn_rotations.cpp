// `flexllm learn-rotations`: rotations R1 and R2 for a checkpoint and a scheme, for `flexllm
// quantize --rotations`.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <exception>
#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>
#include <numeric>

#include "cli/calibration.h"
#include "cli/exit_code.h"
#include "cli/model.h"
#include "cli/option_table.h"
#include "cli/progress.h"
#include "cli/subcommand.h"
#include "formats/checkpoint.h"
#include "quantizer/packing/packed_cache.h"
#include "quantizer/packing/partial_folder.h"
#include "quantizer/rotation/learn.h"

namespace flexllm::cli {
namespace {

namespace fs = std::filesystem;

struct LearnRotationsOptions {
  fs::path model;
  fs::path output;
  std::string scheme = "w4g64a8kv8-lm8-r124";
  CalibrationOptions calibration;
  quantizer::LearnOptions learn;
  uint32_t rotation_seed = 0;
  uint32_t threads = 0;
  bool json = false;
  OptionTable table;
};

double sum(const std::vector<double>& values) {
  return std::accumulate(values.begin(), values.end(), 0.0);
}

int learn_rotations(LearnRotationsOptions& options) {
  options.table.resolve();
  const quantizer::Scheme scheme = parse_scheme(options.scheme);
  if (!scheme.rotate_residual && !scheme.rotate_values) {
    throw Failure(kUsage, "--scheme: it has neither R1 nor R2 to learn");
  }
  const fs::path model = options.model == "default" ? default_model() : options.model;
  quantizer::LearnedRotations learned;
  try {
    const auto checkpoint = formats::open_checkpoint(model);
    const auto windows = calibration_windows(model, options.calibration);
    quantizer::Workers workers(options.threads);
    Progress progress(
        fmt::format("learning rotations of {} for {}", model.string(), scheme.label()));
    options.learn.seed = options.rotation_seed;
    options.learn.progress = [&progress](double share) { progress.show(share); };
    quantizer::PartialFolder partial(options.output, "rotation.",
                                     quantizer::fingerprint(model) + "\n" +
                                         quantizer::learning_key(scheme, windows, options.learn));
    options.learn.partial = &partial;
    learned = quantizer::learn_rotations(*checkpoint, scheme, windows, options.learn, workers);
    quantizer::save_rotations(learned.rotations, options.output);
    partial.finish();
  } catch (const Failure&) {
    throw;
  } catch (const std::exception& error) {
    throw Failure(kModel, error.what());
  }
  if (options.json) {
    const nlohmann::json report = {{"file", options.output.string()},
                                   {"scheme", scheme.name()},
                                   {"loss_before", learned.loss_before},
                                   {"loss_after", learned.loss_after}};
    fmt::print("{}\n", report.dump());
  } else {
    fmt::print("{}: rounding noise {:.4g} with random rotations, {:.4g} with these\n",
               options.output.string(), sum(learned.loss_before), sum(learned.loss_after));
  }
  return kOk;
}

}  // namespace

Run add_learn_rotations(CLI::App& app) {
  auto options = std::make_shared<LearnRotationsOptions>();
  app.add_option("MODEL", options->model, "GGUF file, Hugging Face folder, or 'default'")
      ->required();
  app.add_option("-o,--output", options->output, "Rotations to write (.safetensors)")->required();
  OptionTable& table = options->table;
  table.group("Rotations");
  table.add("scheme", options->scheme, "What they are for: its precisions, and whether R1 and R2");
  table.add("steps", options->learn.steps, 1, 100000, "Steps of each rotation");
  table.add("rows", options->learn.rows, 1, 1u << 20, "Activations that a matrix is judged by");
  table.add("weight-rows", options->learn.weight_rows, 1, 1u << 20,
            "Weight rows that a matrix is judged by");
  table.add("rotation-seed", options->rotation_seed, 0, UINT32_MAX,
            "Of the random rotations that it starts from");
  table.add("threads", options->threads, 0, 1024, "0: as many as there are processors");
  table.add("json", options->json, "Report as JSON on stdout");
  add_calibration_options(table, options->calibration);
  table.attach(app);
  return [options] { return learn_rotations(*options); };
}

}  // namespace flexllm::cli
