// A checkpoint in another basis: the same function in exact arithmetic, with weights and hidden
// states that are easier to quantise.
//
// With R1 (x' = x R1 for the residual stream x): the gain of every RMSNorm but those of q and k is
// multiplied into the inputs of the matrices behind it and becomes 1; embedding rows and the
// outputs of o and down are multiplied by R1; the inputs of q, k, v, gate, up and lm_head likewise,
// which undoes it. lm_head then differs from the embedding, so it is there even where the original
// has tied them. With R2 of a layer: values of each KV head, their bias too, are multiplied by R2,
// and so are the inputs of o for each query head.
//
// The original must outlive it. Any thread may call any member, as with every Checkpoint; calls
// that need products wait for each other and spread their work over the threads. Rows are computed
// from the original in bounded memory, but rows of o and down need their whole matrix, and rows of
// v a whole head: read those matrices in few pieces. Values do not depend on the pieces.
#pragma once

#include <mutex>
#include <string>
#include <unordered_map>

#include "formats/checkpoint.h"
#include "quantizer/rotation/rotations.h"

namespace flexllm::quantizer {

class RotatedCheckpoint final : public formats::Checkpoint {
 public:
  // `threads` as for Workers. Throws std::invalid_argument if the rotations are not of the model's
  // sizes.
  RotatedCheckpoint(const formats::Checkpoint& original, Rotations rotations, size_t threads);

  const Rotations& rotations() const { return rotations_; }

  const formats::ModelConfig& config() const override { return config_; }
  const formats::GenerationDefaults& generation_defaults() const override {
    return original_.generation_defaults();
  }
  const formats::TokenizerSource& tokenizer() const override { return original_.tokenizer(); }
  std::span<const formats::TensorInfo> tensors() const override { return tensors_; }
  const formats::TensorInfo* find(std::string_view name) const override;
  void read_rows_f32(std::string_view name, uint64_t first_row, uint64_t n_rows,
                     std::span<float> out) const override;

 private:
  // What happens to a tensor: w becomes outputs^T w diag(gain) inputs.
  struct Change {
    std::string source;  // its name in the original
    bool ones = false;   // a gain that has moved
    std::string gain;    // name of the gain that is multiplied into the columns; empty: none
    const Rotation* inputs = nullptr;
    const Rotation* outputs = nullptr;
  };

  Change change_of(const std::string& name) const;
  void plan(const formats::TensorInfo& info);
  void turn_outputs(const Change& change, uint64_t first_row, uint64_t width,
                    std::span<float> out) const;
  void read_turned_inputs(const Change& change, uint64_t first_row, View rows) const;

  const formats::Checkpoint& original_;
  const Rotations rotations_;
  formats::ModelConfig config_;
  std::vector<formats::TensorInfo> tensors_;
  std::unordered_map<std::string, size_t> index_;
  std::vector<Change> changes_;  // parallel to tensors_
  mutable std::mutex mutex_;     // of workers_
  mutable Workers workers_;
};

}  // namespace flexllm::quantizer
