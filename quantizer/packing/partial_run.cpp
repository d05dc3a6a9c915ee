#include "quantizer/packing/partial_run.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <iterator>
#include <system_error>
#include <vector>

#include "formats/error.h"
#include "formats/safetensors.h"

namespace flexllm::quantizer {
namespace {

namespace fs = std::filesystem;
using formats::DType;
using formats::Error;

constexpr MatrixKind kKinds[] = {MatrixKind::qkv, MatrixKind::o, MatrixKind::gate_up,
                                 MatrixKind::down};
constexpr const char* kKeyFile = "key";
constexpr const char* kStem = "layer.";
constexpr uint64_t kMetadataCapacity = 64;

std::string reason() { return std::generic_category().message(errno); }

std::string tensor_name(MatrixKind kind, const char* part) {
  return std::string(name_of(kind)) + "." + part;
}

// A layer's file, or what a writer that was killed has left of one.
bool is_layer(const fs::path& file) { return file.filename().string().starts_with(kStem); }

}  // namespace

PartialRun::PartialRun(const fs::path& output, const std::string& key)
    : folder_(output.string() + ".partial") {
  std::error_code error;
  fs::create_directory(folder_, error);
  if (!fs::is_directory(folder_)) {
    throw Error(folder_, "cannot make the folder", error ? error.message() : "a file is there");
  }
  for (const auto& entry : fs::directory_iterator(folder_)) {
    if (entry.path().filename() != kKeyFile && !is_layer(entry.path())) {
      throw Error(folder_, entry.path().filename().string(),
                  "is not of an unfinished packing: move the folder away");
    }
  }
  const fs::path key_file = folder_ / kKeyFile;
  lock_ = ::open(key_file.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0666);
  if (lock_ < 0) throw Error(key_file, "cannot open", reason());
  if (::flock(lock_, LOCK_EX | LOCK_NB) != 0) {
    ::close(lock_);
    throw Error(folder_, "in use", "another process is packing into the same file");
  }
  std::ifstream stored(key_file, std::ios::binary);
  const std::string text{std::istreambuf_iterator<char>(stored), std::istreambuf_iterator<char>()};
  if (text == key) return;
  // Layers go before the key comes: a run that is killed in between begins anew.
  remove_layers();
  if (::ftruncate(lock_, 0) != 0 ||
      ::pwrite(lock_, key.data(), key.size(), 0) != static_cast<ssize_t>(key.size()) ||
      ::fsync(lock_) != 0) {
    const std::string why = reason();
    ::close(lock_);
    throw Error(key_file, "cannot write", why);
  }
}

PartialRun::~PartialRun() {
  if (lock_ < 0) return;
  std::error_code error;
  if (!holds_layers()) {
    fs::remove(folder_ / kKeyFile, error);
    fs::remove(folder_, error);
  }
  ::close(lock_);
}

void PartialRun::finish() {
  remove_layers();
  std::error_code error;
  fs::remove(folder_ / kKeyFile, error);
  fs::remove(folder_, error);
}

void PartialRun::remove_layers() const {
  std::vector<fs::path> files;
  for (const auto& entry : fs::directory_iterator(folder_)) {
    if (is_layer(entry.path())) files.push_back(entry.path());
  }
  for (const fs::path& file : files) fs::remove(file);
}

bool PartialRun::holds_layers() const {
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(folder_, error)) {
    if (is_layer(entry.path())) return true;
  }
  return false;
}

fs::path PartialRun::file_of(uint32_t layer) const {
  return folder_ / (kStem + std::to_string(layer) + ".safetensors");
}

void PartialRun::store(uint32_t layer, const LayerRows& rows) const {
  std::vector<formats::SafetensorsHead> heads;
  for (const MatrixKind kind : kKinds) {
    const auto& matrix = rows[static_cast<size_t>(kind)];
    heads.push_back({tensor_name(kind, "q"), DType::i8, {matrix.size(), matrix.front().q.size()}});
    heads.push_back({tensor_name(kind, "scales"), DType::f32, {matrix.size()}});
    heads.push_back({tensor_name(kind, "multipliers"),
                     DType::u8,
                     {matrix.size(), matrix.front().multipliers.size()}});
  }
  formats::SafetensorsWriter writer(file_of(layer), heads, kMetadataCapacity);
  for (const MatrixKind kind : kKinds) {
    const auto& matrix = rows[static_cast<size_t>(kind)];
    for (const QuantizedRow& row : matrix) {
      writer.write(tensor_name(kind, "q"), std::as_bytes(std::span(row.q)));
    }
    std::vector<float> scales;
    for (const QuantizedRow& row : matrix) scales.push_back(row.scale);
    writer.write(tensor_name(kind, "scales"), std::as_bytes(std::span(scales)));
    for (const QuantizedRow& row : matrix) {
      writer.write(tensor_name(kind, "multipliers"), std::as_bytes(std::span(row.multipliers)));
    }
  }
  writer.commit({});
}

std::optional<LayerRows> PartialRun::load(uint32_t layer) const {
  const fs::path path = file_of(layer);
  if (!fs::exists(path)) return std::nullopt;
  const formats::SafetensorsFile file(path);
  LayerRows rows;
  for (const MatrixKind kind : kKinds) {
    const auto* q = file.find(tensor_name(kind, "q"));
    const auto* scales = file.find(tensor_name(kind, "scales"));
    const auto* multipliers = file.find(tensor_name(kind, "multipliers"));
    if (q == nullptr || scales == nullptr || multipliers == nullptr || q->type != DType::i8 ||
        scales->type != DType::f32 || multipliers->type != DType::u8 || q->shape.size() != 2 ||
        scales->shape != std::vector<uint64_t>{q->shape[0]} || multipliers->shape.size() != 2 ||
        multipliers->shape[0] != q->shape[0]) {
      throw Error(path, "tensors", "are not those of a layer: remove the folder");
    }
    const size_t inputs = q->shape[1];
    const size_t groups = multipliers->shape[1];
    auto& matrix = rows[static_cast<size_t>(kind)];
    matrix.resize(q->shape[0]);
    for (size_t r = 0; r < matrix.size(); ++r) {
      QuantizedRow& row = matrix[r];
      row.q.resize(inputs);
      std::memcpy(row.q.data(), q->data.data() + r * inputs, inputs);
      row.multipliers.resize(groups);
      if (groups > 0) {
        std::memcpy(row.multipliers.data(), multipliers->data.data() + r * groups, groups);
      }
      std::memcpy(&row.scale, scales->data.data() + r * sizeof(float), sizeof(float));
      set_weight_sum(row);
    }
  }
  return rows;
}

}  // namespace flexllm::quantizer
