#include "quantizer/rotation/rotations.h"

#include <cstring>
#include <stdexcept>
#include <utility>

#include "formats/error.h"
#include "formats/safetensors.h"
#include "formats/sha256.h"

namespace flexllm::quantizer {
namespace {

using formats::DType;
using formats::Error;

constexpr const char* kFormat = "flexllm-rotations";
constexpr uint64_t kMetadataCapacity = 256;

std::string name_of_values(size_t layer) { return "values." + std::to_string(layer); }

// Calls body(name, rotation) for all of them, in the order of the file.
template <typename Body>
void for_each(const Rotations& rotations, Body body) {
  if (!rotations.residual.empty()) body(std::string("residual"), rotations.residual);
  for (size_t i = 0; i < rotations.values.size(); ++i) body(name_of_values(i), rotations.values[i]);
}

class Reader {
 public:
  Reader(const std::filesystem::path& path, Workers& workers) : file_(path), workers_(workers) {
    const auto format = file_.metadata().find("format");
    if (format == file_.metadata().end() || format->second != kFormat) {
      throw Error(path, "metadata \"format\"", std::string("is not ") + kFormat);
    }
  }

  bool has(const std::string& name) const {
    return file_.find(name) != nullptr || file_.find(name + ".signs") != nullptr;
  }

  Rotation read(const std::string& name, uint64_t size) const {
    try {
      if (const auto* signs = file_.find(name + ".signs")) {
        return Rotation::hadamard(floats(*signs, {size}));
      }
      const auto* matrix = file_.find(name);
      if (matrix == nullptr) throw std::invalid_argument("is missing");
      return Rotation::dense(Matrix(size, size, floats(*matrix, {size, size})), workers_);
    } catch (const std::invalid_argument& error) {
      throw Error(file_.path(), "tensor \"" + name + "\"", error.what());
    }
  }

 private:
  static std::vector<float> floats(const formats::SafetensorsTensor& tensor,
                                   const std::vector<uint64_t>& shape) {
    if (tensor.type != DType::f32 || tensor.shape != shape) {
      throw std::invalid_argument("is not F32 of the model's size");
    }
    std::vector<float> values(tensor.data.size() / sizeof(float));
    std::memcpy(values.data(), tensor.data.data(), tensor.data.size());
    return values;
  }

  formats::SafetensorsFile file_;
  Workers& workers_;
};

}  // namespace

Rotations random_rotations(const formats::ModelConfig& config, bool residual, bool values,
                           uint64_t seed, Workers& workers) {
  // Models have fewer than 65,536 layers.
  const auto own_seed = [seed](uint64_t index) { return (seed << 16) + index; };
  Rotations rotations;
  if (residual) rotations.residual = Rotation::random(config.hidden, own_seed(0), workers);
  for (uint32_t layer = 0; values && layer < config.layers; ++layer) {
    rotations.values.push_back(Rotation::random(config.head_dim, own_seed(layer + 1), workers));
  }
  return rotations;
}

Rotations complete_rotations(Rotations given, const formats::ModelConfig& config, bool residual,
                             bool values, uint64_t seed, Workers& workers) {
  if (!given.residual.empty() && !residual) {
    throw std::invalid_argument("the rotations have R1, and the scheme has not");
  }
  if (!given.values.empty() && !values) {
    throw std::invalid_argument("the rotations have R2, and the scheme has not");
  }
  Rotations random = random_rotations(config, residual && given.residual.empty(),
                                      values && given.values.empty(), seed, workers);
  if (given.residual.empty()) given.residual = std::move(random.residual);
  if (given.values.empty()) given.values = std::move(random.values);
  return given;
}

void save_rotations(const Rotations& rotations, const std::filesystem::path& path) {
  std::vector<formats::SafetensorsHead> heads;
  for_each(rotations, [&heads](const std::string& name, const Rotation& rotation) {
    const uint64_t size = rotation.size();
    if (rotation.signs().empty()) {
      heads.push_back({name, DType::f32, {size, size}});
    } else {
      heads.push_back({name + ".signs", DType::f32, {size}});
    }
  });
  formats::SafetensorsWriter writer(path, heads, kMetadataCapacity);
  for_each(rotations, [&writer](const std::string& name, const Rotation& rotation) {
    if (rotation.signs().empty()) {
      writer.write(name, std::as_bytes(std::span<const float>(rotation.matrix().elements())));
    } else {
      writer.write(name + ".signs", std::as_bytes(rotation.signs()));
    }
  });
  writer.commit({{"format", kFormat}});
}

Rotations load_rotations(const std::filesystem::path& path, const formats::ModelConfig& config,
                         Workers& workers) {
  const Reader reader(path, workers);
  Rotations rotations;
  if (reader.has("residual")) rotations.residual = reader.read("residual", config.hidden);
  if (reader.has(name_of_values(0))) {
    for (uint32_t layer = 0; layer < config.layers; ++layer) {
      rotations.values.push_back(reader.read(name_of_values(layer), config.head_dim));
    }
  }
  if (rotations.empty()) throw Error(path, "tensors", "hold no rotation");
  return rotations;
}

std::string digest(const Rotations& rotations) {
  formats::Sha256 sum;
  for_each(rotations, [&sum](const std::string& name, const Rotation& rotation) {
    sum.update(std::as_bytes(std::span(name)));
    const Matrix matrix = rotation.matrix();
    sum.update(std::as_bytes(matrix.elements()));
    sum.update(std::as_bytes(rotation.signs()));
  });
  return formats::to_hex(sum.finish());
}

}  // namespace flexllm::quantizer
