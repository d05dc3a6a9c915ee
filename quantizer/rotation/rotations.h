// The rotations that are fused into a model's weights (SpinQuant, arXiv 2405.16406): R1 turns the
// residual stream, R2 the values of a layer's heads. Plain values; threads may read them together.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "formats/model_config.h"
#include "quantizer/rotation/rotation.h"

namespace flexllm::quantizer {

struct Rotations {
  Rotation residual;             // R1 [hidden]; empty: none
  std::vector<Rotation> values;  // R2 [head_dim] of each layer; none: no R2

  bool empty() const { return residual.empty() && values.empty(); }
};

// Random ones, each from a seed of its own that follows from `seed`.
Rotations random_rotations(const formats::ModelConfig& config, bool residual, bool values,
                           uint64_t seed, Workers& workers);

// `given`, and random ones where `residual` or `values` asks for them and it has none. Throws
// std::invalid_argument if it has what is not asked for.
Rotations complete_rotations(Rotations given, const formats::ModelConfig& config, bool residual,
                             bool values, uint64_t seed, Workers& workers);

// A safetensors file. `residual` [hidden][hidden] and `values.N` [head_dim][head_dim], F32, or, for
// random Hadamard matrices, their signs, `residual.signs` [hidden] and `values.N.signs`. The writer
// writes aside and renames. Both throw formats::Error; the reader also for sizes that are not the
// model's, and for what is not orthogonal.
void save_rotations(const Rotations& rotations, const std::filesystem::path& path);
Rotations load_rotations(const std::filesystem::path& path, const formats::ModelConfig& config,
                         Workers& workers);

// SHA-256, hexadecimal, of all that the rotations are.
std::string digest(const Rotations& rotations);

}  // namespace flexllm::quantizer
