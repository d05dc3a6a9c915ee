// A quantisation scheme: the precision of every matrix of a model, the rotations that go with it,
// and its name. A plain value.
#pragma once

#include <compare>
#include <cstdint>
#include <map>
#include <string>
#include <string_view>

#include "kernels/contract/layout.h"

namespace flexllm::quantizer {

// The matrices as the kernels see them: q, k and v are one, gate and up are one. In the order in
// which a layer applies them, and in which they are rounded.
enum class MatrixKind { qkv, o, gate_up, down, lm_head };

// "qkv", "o", "gate_up", "down", "lm_head".
std::string_view name_of(MatrixKind kind);

struct MatrixId {
  uint32_t layer = 0;  // of lm_head: the number of layers
  MatrixKind kind = MatrixKind::qkv;
  auto operator<=>(const MatrixId&) const = default;
};

// "w4g64a8", "w4a4c85", "w8a8s". Bits are 4 or 8; `grouped`: a multiplier for every 64 inputs of a
// row.
struct MatrixPrecision {
  uint32_t weight_bits = 8;
  uint32_t activation_bits = 8;
  bool grouped = false;
  bool symmetric = false;        // the range of a row is as wide on both sides of 0
  uint32_t range_percent = 100;  // of that range is kept, what lies outside is clipped; 1 to 100
  auto operator<=>(const MatrixPrecision&) const = default;

  std::string name() const;
  // `bias`: a float is added to every output (q, k and v of some models).
  kernels::Precision encoded(bool bias) const;
};

// Embedding rows stay binary16. The default is the one that docs/accuracy.md chooses.
struct Scheme {
  MatrixPrecision linears;                         // of the layers
  std::map<MatrixId, MatrixPrecision> exceptions;  // matrices of layers that differ from `linears`
  MatrixPrecision lm_head;
  uint32_t probability_bits = 16;  // attention probabilities, 8 or 16
  bool rotate_residual = false;    // R1: the residual stream, fused
  bool rotate_values = false;      // R2: the values of a head, fused
  bool rotate_down = true;         // R4: Hadamard blocks before down_proj, online

  // "w4a8kv8-lm8", with "g64" behind the weights when grouped (lm_head then has groups too), "s"
  // and "c85" behind the activations when their range is symmetric and when it is clipped, "a4"
  // behind the bits of lm_head when its inputs have 4 bits, and "-r124" with the rotations that are
  // used. Exceptions follow, ranges of layers of one kind at a time:
  // "w4g64a8kv8-lm8-r124:0-2.down=w8g64a8,29.qkv=w8g64a8".
  std::string name() const;
  // The name without the exceptions, "-mixed" behind it if there are any: for files and messages.
  std::string label() const;

  // The scheme of that name; spaces and line breaks are ignored. Throws std::invalid_argument,
  // whose message lists the parts.
  static Scheme parse(std::string_view name);

  const MatrixPrecision& of(const MatrixId& id) const;

  // Throws std::invalid_argument if an exception names a layer that a model of `layers` lacks.
  void check_layers(uint32_t layers) const;
};

}  // namespace flexllm::quantizer
