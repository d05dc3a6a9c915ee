#include "quantizer/packing/packed_cache.h"

#include <algorithm>
#include <cstdlib>
#include <string>
#include <vector>

#include "formats/error.h"
#include "formats/packed_model.h"
#include "formats/sha256.h"

namespace flexllm::quantizer {
namespace {

namespace fs = std::filesystem;

const char* set_variable(const char* name) {
  const char* value = std::getenv(name);
  return value != nullptr && value[0] != '\0' ? value : nullptr;
}

std::string sum_of(const std::string& text) {
  return formats::to_hex(formats::sha256(std::as_bytes(std::span(text))));
}

}  // namespace

fs::path cache_folder() {
  if (const char* folder = set_variable("FLEXLLM_CACHE")) return folder;
  if (const char* folder = set_variable("XDG_CACHE_HOME")) return fs::path(folder) / "flexllm";
  if (const char* home = set_variable("HOME")) return fs::path(home) / ".cache" / "flexllm";
  throw formats::Error("no cache folder: set FLEXLLM_CACHE (or HOME)");
}

std::string fingerprint(const fs::path& checkpoint) {
  std::error_code error;
  const fs::path canonical = fs::canonical(checkpoint, error);
  if (error) throw formats::Error(checkpoint.string() + ": " + error.message());
  std::vector<fs::path> files;
  if (fs::is_directory(canonical)) {
    for (const auto& entry : fs::directory_iterator(canonical)) {
      if (entry.is_regular_file()) files.push_back(entry.path());
    }
    std::sort(files.begin(), files.end());
  } else {
    files.push_back(canonical);
  }
  std::string text = canonical.string() + '\n';
  for (const fs::path& file : files) {
    text += file.filename().string() + '\n' + std::to_string(fs::file_size(file)) + '\n' +
            std::to_string(fs::last_write_time(file).time_since_epoch().count()) + '\n';
  }
  return text;
}

CachedModel find_packed(const fs::path& checkpoint, const PackOptions& options) {
  std::string key = fingerprint(checkpoint) + options.scheme.name() + '\n' +
                    std::to_string(options.rotation_seed) + '\n' + options.rounding + '\n' +
                    std::to_string(options.streams) + '\n' + std::to_string(options.max_context) +
                    '\n' + std::to_string(formats::kPackedContractVersion);
  if (!options.rotations.empty()) key += '\n' + digest(options.rotations);
  const std::string stem = fs::canonical(checkpoint).stem().string() + "." + options.scheme.label();
  CachedModel model;
  model.path =
      cache_folder() / "packed" / (stem + "." + sum_of(key).substr(0, 16) + ".safetensors");
  model.present = formats::PackedModel::is_packed(model.path);
  return model;
}

fs::path ensure_packed(const fs::path& checkpoint, const PackOptions& options) {
  const CachedModel model = find_packed(checkpoint, options);
  if (model.present) return model.path;
  std::error_code error;
  fs::create_directories(model.path.parent_path(), error);
  if (error) {
    throw formats::Error(model.path.parent_path().string() +
                         ": cannot be created: " + error.message());
  }
  const auto source = formats::open_checkpoint(checkpoint);
  PackOptions complete = options;
  if (complete.source.empty()) complete.source = checkpoint.filename().string();
  if (complete.source_sha256.empty() && fs::is_regular_file(checkpoint)) {
    complete.source_sha256 = formats::to_hex(formats::sha256_file(checkpoint));
  }
  pack(*source, model.path, complete);
  return model.path;
}

}  // namespace flexllm::quantizer
