// `flexllm quantize`: a checkpoint to a packed model, without a card.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <exception>
#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>

#include "cli/exit_code.h"
#include "cli/model.h"
#include "cli/progress.h"
#include "cli/subcommand.h"
#include "formats/checkpoint.h"
#include "formats/packed_model.h"
#include "quantizer/packing/pack.h"

namespace flexllm::cli {
namespace {

namespace fs = std::filesystem;

struct QuantizeOptions {
  fs::path model;
  fs::path output;
  std::string scheme = quantizer::Scheme().name();
  uint32_t streams = 16;
  uint32_t context = 0;
  uint32_t threads = 0;
  bool json = false;
};

int quantize(const QuantizeOptions& options) {
  quantizer::PackOptions pack;
  pack.scheme = parse_scheme(options.scheme);
  pack.streams = options.streams;
  pack.max_context = options.context;
  pack.threads = options.threads;
  const fs::path model = options.model == "default" ? default_model() : options.model;
  pack.source = model.filename().string();
  try {
    const auto checkpoint = formats::open_checkpoint(model);
    Progress progress(fmt::format("packing {} as {}", model.string(), options.scheme));
    pack.progress = [&progress](double share) { progress.show(share); };
    quantizer::pack(*checkpoint, options.output, pack);
  } catch (const std::exception& error) {
    throw Failure(kModel, error.what());
  }
  if (options.json) {
    const nlohmann::json report = {{"file", options.output.string()},
                                   {"scheme", options.scheme},
                                   {"bytes", fs::file_size(options.output)}};
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
  app.add_option("--scheme", options->scheme,
                 "Precision of weights, activations, cache and lm_head, as in w4g64a8kv8-lm8")
      ->capture_default_str();
  app.add_option("--streams", options->streams, "Weight streams of the accelerator")
      ->check(CLI::Range(1, 32))
      ->capture_default_str();
  app.add_option("--context", options->context,
                 "Positions of the RoPE table; 0: the model's context length")
      ->capture_default_str();
  app.add_option("--threads", options->threads, "0: as many as there are processors")
      ->capture_default_str();
  app.add_flag("--json", options->json, "Report as JSON on stdout");
  return [options] { return quantize(*options); };
}

}  // namespace flexllm::cli
