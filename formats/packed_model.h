// The packed model: quantised weights in the layout of the card, with everything a server needs to
// know about the model, in one safetensors file (docs/packed-model.md).
//
// A PackedModel is mapped and immutable; any thread may read it. A PackedModelWriter belongs to one
// thread. Both throw Error. What the bytes of the arenas and of the model buffer mean is the
// business of kernels/contract/; here they are bytes with checksums.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "formats/model_config.h"
#include "formats/safetensors.h"
#include "formats/tokenizer_source.h"

namespace flexllm::formats {

inline constexpr uint32_t kPackedContractVersion = 1;

// Everything of a packed model but its bytes.
struct PackedModelInfo {
  ModelConfig config;
  GenerationDefaults generation;
  TokenizerSource tokenizer;
  std::string scheme;         // "w8a8kv8-lm8"
  std::string source;         // file name of the checkpoint
  std::string source_sha256;  // of its weights file, or empty
  // Of the rotations that are fused into the weights (quantizer/rotation/rotations.h), or empty.
  std::string rotations_sha256;
  // How the weights were rounded, with all settings: "rtn", or what quantizer::Rounder::key() says.
  std::string rounding;
};

// How a model's hidden states are stored, where not as the checkpoint has them: x R for a state x,
// and final norms without their gain. A plain value.
struct HiddenBasis {
  std::vector<float> matrix;      // R [hidden][hidden], orthogonal
  std::vector<float> final_gain;  // [hidden]: of the checkpoint's final norm

  // A hidden state of the checkpoint as an input row of the packed model. `state` and `out` hold
  // `hidden` floats and do not overlap; else std::invalid_argument. Sums are binary64.
  void store(std::span<const float> state, std::span<float> out) const;
  // An output row as the checkpoint would have it: the residual of a layer, or the final norm.
  void restore(std::span<const float> stored, bool final_norm, std::span<float> out) const;
};

class PackedModel {
 public:
  enum class Check { sizes, checksums };

  // `sizes` reads the header only; `checksums` also reads every byte once.
  explicit PackedModel(const std::filesystem::path& path, Check check = Check::sizes);

  // True if the file at `path` is a packed model, of whatever version; never throws.
  static bool is_packed(const std::filesystem::path& path) noexcept;

  const std::filesystem::path& path() const { return file_.path(); }
  const PackedModelInfo& info() const { return info_; }
  const ModelConfig& config() const { return info_.config; }

  uint32_t streams() const { return static_cast<uint32_t>(arenas_.size()); }
  std::span<const std::byte> arena(uint32_t stream) const { return arenas_.at(stream); }
  std::span<const std::byte> model_buffer() const { return model_buffer_; }

  // The input row of a token, `hidden` floats in the stored basis. Throws std::out_of_range.
  void embedding_row(uint32_t token, std::span<float> out) const;

  // Read anew by each call; nullopt if hidden states are as in the checkpoint.
  std::optional<HiddenBasis> hidden_basis() const;

 private:
  void read_info();
  void read_tensors();
  void check_basis() const;
  void verify_checksums() const;

  SafetensorsFile file_;
  PackedModelInfo info_;
  std::vector<std::span<const std::byte>> arenas_;
  std::span<const std::byte> model_buffer_;
  const SafetensorsTensor* embedding_ = nullptr;
};

// Writes aside and renames: an interrupted or failed packing leaves nothing behind.
class PackedModelWriter {
 public:
  // All arenas have `arena_bytes`; the embedding is stored as binary16 or binary32. A basis must
  // have the sizes of the model.
  PackedModelWriter(const std::filesystem::path& path, PackedModelInfo info, uint32_t streams,
                    uint64_t arena_bytes, uint64_t model_bytes, DType embedding,
                    std::optional<HiddenBasis> basis = std::nullopt);
  ~PackedModelWriter();

  // In this order: every arena in one piece, the model buffer, then rows of the embedding, in
  // order, in pieces of whole rows.
  void write_arena(uint32_t stream, std::span<const std::byte> bytes);
  void write_model_buffer(std::span<const std::byte> bytes);
  void write_embedding(std::span<const float> rows);

  // After the last row.
  void commit();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

// Rounds to binary16, to nearest even, saturating at the largest finite value.
uint16_t to_f16(float value);

}  // namespace flexllm::formats
