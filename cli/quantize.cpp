// `flexllm quantize`: a checkpoint to a packed model, without a card. A run that was stopped goes
// on when it is started again.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <exception>
#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>

#include "cli/budget.h"
#include "cli/exit_code.h"
#include "cli/model.h"
#include "cli/option_table.h"
#include "cli/progress.h"
#include "cli/rounding.h"
#include "cli/subcommand.h"
#include "formats/checkpoint.h"
#include "formats/sha256.h"
#include "quantizer/packing/pack.h"
#include "quantizer/packing/packed_cache.h"
#include "quantizer/rotation/rotations.h"

namespace flexllm::cli {
namespace {

namespace fs = std::filesystem;

struct QuantizeOptions {
  fs::path model;
  fs::path output;
  std::string scheme = quantizer::Scheme().name();
  RoundingOptions rounding;
  BudgetOptions budget;
  uint32_t streams = 16;
  uint32_t context = 0;
  uint32_t threads = 0;
  uint32_t seed = 0;
  fs::path rotations;
  bool json = false;
  OptionTable table;
};

int quantize(QuantizeOptions& options) {
  options.table.resolve();
  quantizer::PackOptions pack;
  pack.scheme = parse_scheme(options.scheme);
  check_budget_options(options.table, options.budget, pack.scheme);
  pack.rotation_seed = options.seed;
  pack.streams = options.streams;
  pack.max_context = options.context;
  pack.threads = options.threads;
  pack.resumable = true;
  const fs::path model = options.model == "default" ? default_model() : options.model;
  pack.source = model.filename().string();
  nlohmann::json report = nlohmann::json::object();
  try {
    const auto checkpoint = formats::open_checkpoint(model);
    pack.identity = quantizer::fingerprint(model);
    if (fs::is_regular_file(model)) {
      pack.source_sha256 = formats::to_hex(formats::sha256_file(model));
    }
    if (!options.rotations.empty()) {
      quantizer::Workers workers(options.threads);
      pack.rotations = quantizer::load_rotations(options.rotations, checkpoint->config(), workers);
    }
    pack.rounding = rounding_key(options.rounding);
    if (!options.budget.budget.empty()) {
      BudgetChoice choice =
          choose_scheme(options.budget, options.rounding, model, *checkpoint, pack, report);
      pack.scheme = std::move(choice.scheme);
      fmt::print(options.json ? stderr : stdout, "{}", choice.text);
      std::fflush(stdout);  // packing may take long
    }
    pack.rounder = make_rounder(options.rounding, model, pack.scheme);
    Progress progress(fmt::format("packing {} as {}", model.string(), pack.scheme.label()));
    pack.progress = [&progress](double share) { progress.show(share); };
    quantizer::pack(*checkpoint, options.output, pack);
  } catch (const Failure&) {
    throw;
  } catch (const std::exception& error) {
    throw Failure(kModel, error.what());
  }
  if (options.json) {
    report.update({{"file", options.output.string()},
                   {"scheme", pack.scheme.name()},
                   {"bytes", fs::file_size(options.output)}});
    fmt::print("{}\n", report.dump());
  } else {
    fmt::print("{}: {} bytes\n", options.output.string(), fs::file_size(options.output));
  }
  return kOk;
}

}  // namespace

Run add_quantize(CLI::App& app) {
  auto options = std::make_shared<QuantizeOptions>();
  app.add_option("MODEL", options->model, "GGUF file, Hugging Face folder, or 'default'")
      ->required();
  app.add_option("-o,--output", options->output, "Packed model to write (.safetensors)")
      ->required();
  OptionTable& table = options->table;
  table.group("Quantisation");
  table.add("scheme", options->scheme,
            "Precision of weights, activations, cache and lm_head, with the rotations, as in "
            "w4g64a8kv8-lm8-r124; or a file that holds such a name");
  table.add("rotations", options->rotations,
            "Rotations R1 and R2 from a file; where it has none they are random");
  table.add("seed", options->seed, 0, UINT32_MAX, "Of random rotations");
  add_rounding_options(table, options->rounding);
  add_budget_options(table, options->budget);
  table.group("Output");
  table.add("streams", options->streams, 1, 32, "Weight streams of the accelerator");
  table.add("context", options->context, 0, UINT32_MAX,
            "Positions of the RoPE table; 0: the model's context length");
  table.add("threads", options->threads, 0, 1024, "0: as many as there are processors");
  table.add("json", options->json, "Report as JSON on stdout");
  table.attach(app);
  return [options] { return quantize(*options); };
}

}  // namespace flexllm::cli
