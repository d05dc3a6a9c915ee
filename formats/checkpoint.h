// A checkpoint as the rest of the project sees it, whatever file it came from: the architecture,
// the tokenizer's material and the tensors under their canonical names. `open_checkpoint` maps the
// files and checks them once; afterwards a Checkpoint is immutable, and any thread may call any
// member at any time. Files must not be changed while they are open.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "formats/dtype.h"
#include "formats/error.h"
#include "formats/model_config.h"
#include "formats/tokenizer_source.h"

namespace flexllm::formats {

// One tensor. `shape` is outermost first, as in `[out][in]`; `type` is how the file stores it.
struct TensorInfo {
  std::string name;
  std::vector<uint64_t> shape;
  DType type = DType::f32;
};

// Tensors carry the names that Hugging Face gives a Llama model:
//
//   model.embed_tokens.weight [vocab][hidden]   model.norm.weight [hidden]
//   lm_head.weight [vocab][hidden]              absent when config().tied_embeddings
//   model.layers.N.input_layernorm.weight, model.layers.N.post_attention_layernorm.weight
//   model.layers.N.self_attn.{q,k,v,o}_proj.weight   and {q,k,v}_proj.bias with attention_bias
//   model.layers.N.self_attn.{q,k}_norm.weight       with qk_norm
//   model.layers.N.mlp.{gate,up,down}_proj.weight
//
// Rows of q and k (and of their biases) stand in the half-split order of RoPE: element i of a head
// is rotated with element i + head_dim/2. Readers undo whatever order their file uses.
//
// Every tensor in that list exists with the shape that `config()` implies; `open_checkpoint` has
// checked it. Values are dequantised to float and never altered otherwise.
class Checkpoint {
 public:
  virtual ~Checkpoint() = default;
  Checkpoint(const Checkpoint&) = delete;
  Checkpoint& operator=(const Checkpoint&) = delete;

  virtual const ModelConfig& config() const = 0;
  virtual const GenerationDefaults& generation_defaults() const = 0;
  virtual const TokenizerSource& tokenizer() const = 0;

  // In the order of the list above.
  virtual std::span<const TensorInfo> tensors() const = 0;

  // nullptr when the checkpoint has no tensor of that name.
  virtual const TensorInfo* find(std::string_view name) const = 0;

  // The whole tensor, row-major. Throws Error when there is none of that name.
  std::vector<float> read_f32(std::string_view name) const;

  // Rows [first_row, first_row + n_rows) of a matrix, where a row is everything below the outermost
  // dimension; a vector has rows of one element. `out` must hold exactly n_rows rows. Throws Error
  // for an unknown name, rows outside the tensor, or an `out` of another size.
  virtual void read_rows_f32(std::string_view name, uint64_t first_row, uint64_t n_rows,
                             std::span<float> out) const = 0;

 protected:
  Checkpoint() = default;
};

// Opens a GGUF file, or a Hugging Face folder (config.json, safetensors, tokenizer files). Throws
// Error, whose message names the file, the place and what was expected, when the path is neither,
// when the file is cut or malformed, or when the architecture is not supported.
std::unique_ptr<Checkpoint> open_checkpoint(const std::filesystem::path& path);

}  // namespace flexllm::formats
