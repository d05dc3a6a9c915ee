#include "cli/model.h"

#include <fmt/format.h>

#include <cstdio>
#include <exception>
#include <fstream>
#include <stdexcept>
#include <utility>

#include "cli/exit_code.h"
#include "cli/progress.h"
#include "formats/error.h"
#include "formats/packed_model.h"
#include "host/memory_map.h"
#include "quantizer/packing/packed_cache.h"
#include "server/scheduling/engine_backend.h"
#include "server/text/model_text.h"

namespace flexllm::cli {
namespace {

namespace fs = std::filesystem;

constexpr size_t kMostSchemeBytes = 64u << 10;

host::MemoryMap memory_map_of(const host::EngineOptions& options) {
  fs::path path = options.memory_map;
  if (path.empty()) path = fs::path(options.bitstream).replace_extension(".json");
  auto map = host::read_memory_map(path);
  if (!map) throw Failure(kDevice, map.error().message);
  return std::move(*map);
}

fs::path packed_path(const ModelOptions& options, const host::EngineOptions& engine_options) {
  if (formats::PackedModel::is_packed(options.model)) return options.model;
  quantizer::PackOptions pack;
  pack.scheme = parse_scheme(options.scheme);
  pack.streams = memory_map_of(engine_options).weight_streams;
  pack.source = options.model.filename().string();
  pack.rounding = rounding_key(options.rounding);
  const auto cached = quantizer::find_packed(options.model, pack);
  if (cached.present) return cached.path;
  pack.rounder = make_rounder(options.rounding, options.model, pack.scheme);
  Progress progress(
      fmt::format("packing {} as {} (once)", options.model.string(), pack.scheme.label()));
  pack.progress = [&progress](double share) { progress.show(share); };
  return quantizer::ensure_packed(options.model, pack);
}

}  // namespace

void add_model_options(OptionTable& table, ModelOptions& options) {
  table.group("Model");
  table.add(
      "model", options.model,
      "Packed model, GGUF file or Hugging Face folder, or 'default'; what is not packed is packed "
      "once into the user's cache");
  table.add("served-model-name", options.served_model_name,
            "Name that clients ask for; empty: that of the model's file");
  table.add("scheme", options.scheme,
            "Quantisation of a model that is not packed yet: a name, or a file that holds one");
  add_rounding_options(table, options.rounding);
  table.add("default-temperature", options.default_temperature, 0, 2,
            "Where a request names none; absent: the model's own default, else 1");
  table.add("default-top-p", options.default_top_p, 1e-6f, 1,
            "Where a request names none; absent: the model's own default, else 1");
  table.group("Device");
  table.add("device", options.device,
            "'emulated', an index or a PCI address; 'auto': a card if there is one, else emulated");
  table.add(
      "emulated-kernels", options.emulated_kernels,
      "What the emulated card runs: 'twin', fast, or 'csim', the C simulation of the kernels, "
      "the same bits slowly");
  table.add("bitstream", options.bitstream, "The card's .xclbin; the emulated card brings its own");
  table.add("memory-map", options.memory_map,
            "JSON of the accelerator; empty: beside the bitstream");
  table.add("reset-command", options.reset_command,
            "Shell command that resets a card that hangs; empty: it is only reopened");
  table.add("reset-timeout", options.reset_timeout, kShortestTime,
            "After this the reset command is killed");
  table.add("launch-timeout", options.launch_timeout, kShortestTime,
            "After this a kernel counts as stuck");
  table.add("max-kv-bytes", options.max_kv_bytes, 0, UINT64_MAX,
            "Memory for the KV cache; 0: all that its banks have");
}

void add_scheduler_options(OptionTable& table, server::SchedulerOptions& options) {
  table.group("Scheduling");
  table.add("context-length", options.context_length, 0, UINT32_MAX,
            "Tokens that prompt and answer share at most; 0: as many as the model and card take");
  table.add("max-sequences", options.max_sequences, 0, 4096,
            "Choices on the card at once; 0: as many as a decode launch has rows");
  table.add("prefill-chunk", options.prefill_chunk, 1, 1u << 20,
            "Tokens of prompts in one prefill launch");
  table.add(
      "prefill-target", options.prefill_target, std::chrono::milliseconds(0),
      "For a prefill launch on a card without a decode kernel, which is cut to that; 0: no limit");
  table.add("no-prefix-cache", options.no_prefix_cache,
            "Compute every prompt from its first token");
  table.add("host-cache-bytes", options.host_cache_bytes, 0, UINT64_MAX,
            "Host memory for KV pages that the card has no room for");
  table.add("max-queue", options.max_queue, 1, 1u << 20, "Requests that may wait; then 429");
  table.add("max-queued-tokens", options.max_queued_tokens, 1, UINT64_MAX,
            "Tokens of the prompts that may wait; then 429");
  table.add("patience", options.patience, std::chrono::milliseconds(0),
            "After this a waiting request goes before all that wait less, whatever their priority");
  table.add("stream-buffer-bytes", options.result_bytes, 1u << 12, 1u << 30,
            "Unread answer after which a slow reader is dropped");
  table.add("max-faults", options.max_faults, 0, 1000,
            "Failed launches of a request before it is given up");
  table.add("recovery-pause", options.recovery_pause, kShortestTime,
            "Between attempts to bring a lost card back");
}

quantizer::Scheme parse_scheme(const std::string& name) {
  std::string text = name;
  std::error_code error;
  if (fs::is_regular_file(name, error)) {
    std::ifstream file(name, std::ios::binary);
    text.resize(kMostSchemeBytes + 1);
    file.read(text.data(), static_cast<std::streamsize>(text.size()));
    text.resize(static_cast<size_t>(file.gcount()));
  }
  try {
    return quantizer::Scheme::parse(text);
  } catch (const std::invalid_argument& refused) {
    throw Failure(kUsage, std::string("--scheme: ") + refused.what());
  }
}

fs::path default_model() {
  const fs::path path = quantizer::cache_folder() / "SmolLM2-135M-Instruct.Q4_1.gguf";
  if (!fs::exists(path)) {
    throw Failure(kModel,
                  path.string() + ": the default model is not there; scripts/model fetches it");
  }
  return path;
}

LoadedModel load_model(const ModelOptions& asked, const host::EngineOptions& engine_options) {
  if (asked.model.empty()) throw Failure(kUsage, "--model is required");
  ModelOptions options = asked;
  if (options.model == "default") options.model = default_model();
  if (!fs::exists(options.model)) {
    throw Failure(kModel, options.model.string() + ": there is no such file or folder");
  }
  try {
    const fs::path path = packed_path(options, engine_options);
    auto packed = std::make_shared<const formats::PackedModel>(path);
    const formats::PackedModelInfo& info = packed->info();
    LoadedModel loaded;
    loaded.served.name = options.served_model_name;
    if (loaded.served.name.empty()) loaded.served.name = fs::path(info.source).stem().string();
    if (loaded.served.name.empty()) loaded.served.name = options.model.stem().string();
    formats::GenerationDefaults& defaults = loaded.served.defaults;
    defaults = info.generation;
    if (options.default_temperature) defaults.temperature = options.default_temperature;
    if (options.default_top_p) defaults.top_p = options.default_top_p;
    loaded.served.text = std::make_shared<server::ModelText>(info.tokenizer, info.generation);
    fmt::print(stderr, "loading {} ({}) onto the card\n", loaded.served.name, info.scheme);
    auto engine = host::Engine::open(engine_options, packed);
    if (!engine) {
      throw Failure(kDevice, fmt::format("{}: {}", host::to_string(engine.error().kind),
                                         engine.error().message));
    }
    loaded.served.device = (*engine)->description();
    loaded.backend = std::make_unique<server::EngineBackend>(std::move(*engine));
    return loaded;
  } catch (const Failure&) {
    throw;
  } catch (const std::exception& error) {
    throw Failure(kModel, error.what());
  }
}

}  // namespace flexllm::cli
