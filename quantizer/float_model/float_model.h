// A Llama-family model in binary32, from any Checkpoint, over many windows of text at once: one
// layer's weights are in memory at a time, and every window passes through them. On request it
// rounds activations, keys, values and probabilities where docs/numerics.md does, so that it
// predicts, without packing anything, what the kernels will compute; its last bits are its own.
//
// One thread calls; the work is spread over the Workers. Results do not depend on their number.
#pragma once

#include <compare>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "formats/checkpoint.h"
#include "kernels/contract/layout.h"
#include "quantizer/algebra/matrix.h"
#include "quantizer/algebra/workers.h"

namespace flexllm::quantizer {

// The four places of a layer where rows are rounded once for all the matrices that read them.
enum class Stage { qkv, o, gate_up, down };
inline constexpr Stage kStages[] = {Stage::qkv, Stage::o, Stage::gate_up, Stage::down};

// How rows are rounded before a matrix; the default leaves them in binary32.
struct RowRounding {
  uint32_t bits = 0;       // 4, 8, or 0 for binary32
  uint32_t clip = 0;       // 256ths that are cut off the range of a row, 0 to 255
  bool symmetric = false;  // that range is as wide on both sides of 0

  // What the kernels do before a matrix of that precision.
  static RowRounding before(const kernels::Precision& precision);
  auto operator<=>(const RowRounding&) const = default;
};

// Of the rows that enter the matrices of a layer.
struct ActivationRounding {
  RowRounding qkv;
  RowRounding o;
  RowRounding gate_up;
  RowRounding down;

  const RowRounding& of(Stage stage) const;
};

// The default is the plain float model.
struct FloatOptions {
  std::vector<ActivationRounding> activations;  // of every layer; one: of all; none: binary32
  RowRounding lm_head;                          // of the rows that enter lm_head
  bool int8_attention = false;                  // q, k and v in INT8 per token and head
  uint32_t probability_bits = 0;                // 8 or 16, only with int8_attention; 0: binary32
  bool rotate_down = false;                     // R4, before the rounding of down's inputs
};

// What a layer computes with; matrices are [out][in]. Callers may change them. With rotate_down,
// `down` is in the rotated basis (its rows are transformed, as the packed matrix's are).
struct LayerWeights {
  Matrix q, k, v, o, gate, up, down;
  std::vector<float> q_bias, k_bias, v_bias;    // empty without attention_bias
  std::vector<float> attention_norm, ffn_norm;  // gains
  std::vector<float> q_norm, k_norm;            // empty without qk_norm
};

// The residual stream of some windows between two layers. A value: a copy taken before layer n can
// be run from there again. Window w is the rows [starts[w], starts[w + 1]).
struct TokenBatch {
  Matrix residual;  // [tokens][hidden]
  std::vector<size_t> starts;

  size_t windows() const { return starts.size() - 1; }
  size_t tokens() const { return starts.back(); }
};

// Sees what the matrices of a layer read, and may replace them before they are used. For each stage
// in order: inputs() for blocks of rows that make up the batch, in order, then revise() once; only
// then are the matrices of that stage multiplied. So a hook that rounds q, k and v sees o's inputs
// as they come from the rounded ones (GPTQ). Called on the thread that runs the layer.
class LayerHook {
 public:
  virtual ~LayerHook() = default;
  // `rows` [block of tokens][inputs], after rotation and rounding; valid during the call.
  virtual void inputs(Stage stage, ConstView rows) = 0;
  virtual void revise(Stage stage, LayerWeights& weights);  // does nothing by default
};

class FloatModel {
 public:
  // Both references must outlive it. Throws std::invalid_argument for options that do not fit the
  // model.
  FloatModel(const formats::Checkpoint& checkpoint, FloatOptions options, Workers& workers);

  const formats::ModelConfig& config() const { return config_; }
  Workers& workers() const { return workers_; }

  // Throws std::invalid_argument for an empty window, or a token outside the vocabulary.
  TokenBatch embed(std::span<const std::span<const uint32_t>> windows) const;

  // Throws formats::Error for a tensor that is missing, has another shape, or is not finite.
  LayerWeights load_layer(uint32_t layer) const;

  // Takes the batch through a layer. Memory beside the batch: the rows of some 2,048 tokens (at
  // least those of one window); with a hook also the attention's outputs for the whole batch.
  void run_layer(TokenBatch& batch, uint32_t layer, LayerWeights& weights,
                 LayerHook* hook = nullptr) const;

  // The same with weights that are loaded for it and changed by nobody.
  void run_layer(TokenBatch& batch, uint32_t layer) const;

  // embed() and every layer in order. `after_layer` (may be empty) is called behind each.
  TokenBatch run(std::span<const std::span<const uint32_t>> windows,
                 const std::function<void(uint32_t, const TokenBatch&)>& after_layer = {}) const;

  // The rows that enter lm_head: final norm, then rounding for lm_head. [tokens][hidden].
  Matrix head_inputs(const TokenBatch& batch) const;

  // [rows of `inputs`][tokens], from token `first` of the vocabulary on.
  Matrix logits(ConstView inputs, uint32_t first, uint32_t tokens) const;

  // Calls body(first_token, logits) with logits [rows of `inputs`][tokens of the vocabulary from
  // first_token on] for consecutive parts of the vocabulary. `inputs` of a few hundred to some
  // thousand rows bound the memory: 8,192 logits a row.
  void for_logits(ConstView inputs,
                  const std::function<void(uint32_t first_token, ConstView logits)>& body) const;

 private:
  struct Block;

  ActivationRounding activations(uint32_t layer) const;
  Matrix load_matrix(const std::string& name, size_t first, size_t rows, size_t cols) const;
  std::vector<float> load_vector(const std::string& name, size_t size) const;
  void rotate_rows(View rows) const;
  void round_rows(View rows, const RowRounding& rounding) const;
  Matrix normed(ConstView rows, std::span<const float> gain) const;
  Matrix stage_inputs(Stage stage, const TokenBatch& batch, const Block& block, ConstView attended,
                      const ActivationRounding& rounding, const LayerWeights& weights) const;
  void apply_stage(Stage stage, TokenBatch& batch, const Block& block, View attended,
                   ConstView inputs, const LayerWeights& weights) const;

  const formats::Checkpoint& checkpoint_;
  const formats::ModelConfig& config_;
  const FloatOptions options_;
  Workers& workers_;
  std::vector<double> frequencies_;
};

}  // namespace flexllm::quantizer
