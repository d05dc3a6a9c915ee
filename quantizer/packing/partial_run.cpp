#include "quantizer/packing/partial_run.h"

#include <algorithm>
#include <cstring>
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
constexpr uint64_t kMetadataCapacity = 64;

std::string tensor_name(MatrixKind kind, const char* part) {
  return std::string(name_of(kind)) + "." + part;
}

}  // namespace

PartialRun::PartialRun(const fs::path& output, const std::string& key)
    : folder_(output, "layer.", key) {}

fs::path PartialRun::file_of(uint32_t layer) const {
  return folder_.file(std::to_string(layer) + ".safetensors");
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
