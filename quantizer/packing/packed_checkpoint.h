// A packed model read back as a checkpoint: its integers times their scales, in the packed basis.
// With float_options(), FloatModel then computes what the kernels compute, up to the last bits of
// float sums. Immutable; the packed model must outlive it; any thread.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "formats/checkpoint.h"
#include "formats/packed_model.h"
#include "kernels/contract/layout.h"
#include "quantizer/float_model/float_model.h"

namespace flexllm::quantizer {

class PackedCheckpoint final : public formats::Checkpoint {
 public:
  // Throws formats::Error if the model buffer and the arenas do not hold what they should.
  explicit PackedCheckpoint(const formats::PackedModel& packed);

  // Where and how the kernels round the rows of this model.
  const FloatOptions& float_options() const { return options_; }

  const formats::ModelConfig& config() const override { return config_; }
  const formats::GenerationDefaults& generation_defaults() const override {
    return packed_.info().generation;
  }
  const formats::TokenizerSource& tokenizer() const override { return packed_.info().tokenizer; }
  std::span<const formats::TensorInfo> tensors() const override { return tensors_; }
  const formats::TensorInfo* find(std::string_view name) const override;
  void read_rows_f32(std::string_view name, uint64_t first_row, uint64_t n_rows,
                     std::span<float> out) const override;

 private:
  enum class Rows { stacked, gate, up };  // which tiles of a matrix a tensor's rows are
  enum class Part { embedding, gain, weights, bias };
  struct Place {
    Part part = Part::embedding;
    uint32_t word = 0;  // in the model buffer or the arenas
    kernels::TileLayout layout{};
    uint32_t first_row = 0;  // of the matrix
    Rows rows = Rows::stacked;
  };

  uint32_t field(uint64_t index) const;
  void add(const std::string& name, std::vector<uint64_t> shape, const Place& place);
  void add_layer(uint32_t layer);
  // Where a row's tile begins, and its line in it.
  const std::byte* tile_of(const Place& place, uint64_t row, uint32_t& line) const;
  void read_weights(const Place& place, uint64_t row, std::span<float> out) const;

  const formats::PackedModel& packed_;
  formats::ModelConfig config_;
  FloatOptions options_;
  std::vector<formats::TensorInfo> tensors_;
  std::map<std::string, Place, std::less<>> places_;
};

}  // namespace flexllm::quantizer
