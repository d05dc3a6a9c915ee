#include "cli/calibration.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <iterator>
#include <memory>
#include <nlohmann/json.hpp>
#include <random>
#include <span>
#include <system_error>

#include "cli/companion.h"
#include "cli/exit_code.h"
#include "cli/progress.h"
#include "formats/checkpoint.h"
#include "formats/packed_model.h"
#include "formats/sha256.h"
#include "host/memory_map.h"
#include "host/model_header.h"
#include "host/sampler.h"
#include "host/twin_reference.h"
#include "kernels/contract/layout.h"
#include "quantizer/packing/packed_cache.h"
#include "server/text/model_text.h"

namespace flexllm::cli {
namespace {

namespace fs = std::filesystem;
using Windows = std::vector<std::vector<uint32_t>>;

std::string read_text(const CalibrationOptions& options) {
  const fs::path& path = options.text;
  std::error_code error;
  std::ifstream file(path, std::ios::binary);
  if (!file || !fs::is_regular_file(path, error)) {
    throw Failure(kUsage, fmt::format("{}: cannot read {}", options.option, path.string()));
  }
  return {std::istreambuf_iterator<char>(file), {}};
}

Windows windows_of_text(const fs::path& model, const CalibrationOptions& options) {
  const auto checkpoint = formats::open_checkpoint(model);
  const server::ModelText text(checkpoint->tokenizer(), checkpoint->generation_defaults());
  const std::vector<uint32_t> ids = text.encode(read_text(options), false);
  if (ids.size() < options.tokens) {
    throw Failure(kUsage, fmt::format("{}: {} has {} tokens, fewer than one window", options.option,
                                      options.text.string(), ids.size()));
  }
  const size_t count = std::min<size_t>(options.windows, ids.size() / options.tokens);
  Windows windows;
  for (size_t w = 0; w < count; ++w) {
    const size_t begin = count == 1 ? 0 : (ids.size() - options.tokens) * w / (count - 1);
    windows.emplace_back(ids.begin() + static_cast<std::ptrdiff_t>(begin),
                         ids.begin() + static_cast<std::ptrdiff_t>(begin + options.tokens));
  }
  return windows;
}

host::SamplingParams sampling(uint64_t seed) {
  host::SamplingParams params;  // temperature 1, nothing cut off
  params.seed = seed;
  return params;
}

// One window that is being written.
struct Writer {
  Writer(uint64_t seed, std::span<const uint32_t> first)
      : random(seed), sampler(sampling(seed), {}), ids(first.begin(), first.end()) {}

  std::mt19937_64 random;
  host::Sampler sampler;
  std::vector<uint32_t> ids;
  std::vector<host::PageId> pages;
};

template <typename T>
T value_of(tl::expected<T, host::DeviceError> result) {
  if (!result) throw Failure(kModel, result.error().message);
  return std::move(*result);
}

Windows sample(const formats::PackedModel& model, const host::MemoryMap& map,
               const CalibrationOptions& options) {
  const host::ModelHeader header = value_of(host::read_model_header(model, map));
  if (options.windows > map.maxima.prefill_rows) {
    throw Failure(kUsage,
                  fmt::format("--calibration-windows: at most {}", map.maxima.prefill_rows));
  }
  if (options.tokens > header.context) {
    throw Failure(kUsage, fmt::format("--calibration-tokens: at most {}", header.context));
  }
  const server::ModelText text(model.info().tokenizer, model.info().generation);
  const std::vector<uint32_t> first = text.encode("", true);  // <s>, or nothing
  const uint32_t pages = kernels::divide_up(options.tokens, kernels::kPageTokens);
  host::TwinReference twin(model, map, header, pages * options.windows);

  std::vector<Writer> writers;
  for (uint32_t w = 0; w < options.windows; ++w) {
    Writer& writer = writers.emplace_back((uint64_t{options.seed} << 32) + w, first);
    writer.ids.push_back(static_cast<uint32_t>(writer.random() % header.vocab));
    for (uint32_t p = 0; p < pages; ++p) writer.pages.push_back(w * pages + p);
  }
  const auto& ends = text.end_tokens();
  Progress progress(fmt::format("writing {} x {} tokens to calibrate with (once)", options.windows,
                                options.tokens));
  for (uint32_t position = 0; position + 1 < options.tokens; ++position) {
    host::Launch launch;
    launch.stage = host::Stage::prefill;
    for (uint32_t w = 0; w < options.windows; ++w) {
      launch.sequences.emplace_back(writers[w].pages);
      host::Row row;
      row.sequence = w;
      row.position = position;
      row.token = writers[w].ids[position];
      row.outputs.row_result = position + 1 == writers[w].ids.size();
      launch.rows.push_back(row);
    }
    const std::vector<host::RowOutput> rows = value_of(twin.run(launch));
    for (uint32_t w = 0; w < options.windows; ++w) {
      Writer& writer = writers[w];
      if (!launch.rows[w].outputs.row_result) continue;
      auto choice = writer.sampler.sample(rows[w], {}, 0);
      if (!choice) choice = writer.sampler.sample(rows[w], twin.logits(w), 0);
      uint32_t next = choice->token;
      if (std::find(ends.begin(), ends.end(), next) != ends.end()) {
        next = static_cast<uint32_t>(writer.random() % header.vocab);
      }
      writer.ids.push_back(next);
    }
    progress.show((position + 2.0) / options.tokens);
  }
  Windows windows;
  for (Writer& writer : writers) windows.push_back(std::move(writer.ids));
  return windows;
}

// Written aside and renamed, so that another process never reads half of it.
void save(const fs::path& path, const Windows& windows) {
  std::error_code error;
  fs::create_directories(path.parent_path(), error);
  const fs::path aside = fmt::format("{}.{}", path.string(), ::getpid());
  std::ofstream file(aside);
  file << nlohmann::json(windows).dump() << '\n';
  file.close();
  if (file) fs::rename(aside, path, error);
  if (!file || error) {
    fs::remove(aside, error);
    throw Failure(kFailed, path.string() + ": cannot be written");
  }
}

bool load(const fs::path& path, Windows& windows) {
  std::ifstream file(path);
  if (!file) return false;
  const auto json = nlohmann::json::parse(file, nullptr, false);
  try {
    windows = json.get<Windows>();
  } catch (const nlohmann::json::exception&) {
    return false;
  }
  return !windows.empty();
}

}  // namespace

void add_calibration_options(OptionTable& table, CalibrationOptions& options) {
  table.add("calibration", options.text,
            "Text to calibrate with; empty: text that the model writes itself");
  table.add("calibration-windows", options.windows, 1, 4096, "Windows of text to calibrate with");
  table.add("calibration-tokens", options.tokens, 2, 1u << 20, "Tokens of such a window");
  table.add("calibration-seed", options.seed, 0, UINT32_MAX, "Seed of the sampled text");
}

std::string calibration_key(const CalibrationOptions& options) {
  const std::string what =
      options.text.empty() ? fmt::format("seed {}", options.seed) : read_text(options);
  const std::string key = fmt::format("{} {} {}", options.windows, options.tokens, what);
  return formats::to_hex(formats::sha256(std::as_bytes(std::span(key)))).substr(0, 16);
}

Windows calibration_windows(const fs::path& model, const CalibrationOptions& options) {
  if (!options.text.empty()) return windows_of_text(model, options);
  const fs::path map_file = companion("share/flexllm/u280-combined.json");
  if (map_file.empty()) {
    throw Failure(kDevice, "share/flexllm/u280-combined.json is not beside the program");
  }
  const host::MemoryMap map = value_of(host::read_memory_map(map_file));
  quantizer::PackOptions pack;
  pack.streams = map.weight_streams;
  const auto packed = quantizer::find_packed(model, pack);
  const fs::path file =
      quantizer::cache_folder() / "calibration" /
      fmt::format("{}.{}.json", packed.path.stem().string(), calibration_key(options));
  Windows windows;
  if (load(file, windows)) return windows;
  if (!packed.present) {
    Progress progress(fmt::format("packing {} as {} (once)", model.string(), pack.scheme.name()));
    pack.progress = [&progress](double share) { progress.show(share); };
    quantizer::ensure_packed(model, pack);
  }
  windows = sample(formats::PackedModel(packed.path), map, options);
  save(file, windows);
  return windows;
}

}  // namespace flexllm::cli
