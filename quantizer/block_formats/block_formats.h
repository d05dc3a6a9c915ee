// The block formats of llama.cpp, as rounding: 32 consecutive inputs of a row share a binary16
// scale (Q4_1: and a binary16 minimum). To compare our schemes with them on the same float weights.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "formats/checkpoint.h"

namespace flexllm::quantizer {

enum class BlockFormat { q4_0, q4_1, q8_0 };
inline constexpr size_t kBlockElements = 32;

// "q4_0", ...; throws std::invalid_argument that lists the names.
BlockFormat parse_block_format(std::string_view name);
const char* to_string(BlockFormat format);
// Stored bits of a weight, its share of the scales included: 4.5, 5 and 8.5.
double bits_per_weight(BlockFormat format);

// In place: each value becomes the one that is read back from the format, bit for bit that of the
// `gguf` Python package. The size is a multiple of 32, else std::invalid_argument. Any thread.
void round_to_blocks(BlockFormat format, std::span<float> row);

// A checkpoint whose matrices went through block formats: `linears` those of the layers,
// `embeddings` embedding and lm_head (absent: left alone). llama.cpp keeps the latter two at Q6_K
// or, where rows are no multiple of 256, Q8_0, in its 4-bit files. Rows that are no multiple of 32
// stay as they are; so do norms and biases. Immutable; the source must outlive it; any thread.
class BlockRoundedCheckpoint final : public formats::Checkpoint {
 public:
  BlockRoundedCheckpoint(const formats::Checkpoint& source, BlockFormat linears,
                         std::optional<BlockFormat> embeddings);

  const formats::ModelConfig& config() const override { return source_.config(); }
  const formats::GenerationDefaults& generation_defaults() const override {
    return source_.generation_defaults();
  }
  const formats::TokenizerSource& tokenizer() const override { return source_.tokenizer(); }
  std::span<const formats::TensorInfo> tensors() const override { return source_.tensors(); }
  const formats::TensorInfo* find(std::string_view name) const override {
    return source_.find(name);
  }
  void read_rows_f32(std::string_view name, uint64_t first_row, uint64_t n_rows,
                     std::span<float> out) const override;

 private:
  // How the rows of a tensor are rounded; nothing: as they are.
  std::optional<BlockFormat> format_of(const formats::TensorInfo& info) const;

  const formats::Checkpoint& source_;
  BlockFormat linears_;
  std::optional<BlockFormat> embeddings_;
};

}  // namespace flexllm::quantizer
