#include "quantizer/float_model/float_model.h"

#include <algorithm>
#include <cmath>
#include <stdexcept>
#include <string>

#include "formats/error.h"
#include "quantizer/algebra/hadamard.h"
#include "quantizer/algebra/products.h"
#include "quantizer/float_model/attention.h"
#include "quantizer/float_model/rows.h"
#include "quantizer/packing/model_buffer.h"

namespace flexllm::quantizer {
namespace {

constexpr size_t kBlockTokens = 2048;    // rows that are between two stages at a time
constexpr size_t kTaskRows = 64;         // rows that a worker takes
constexpr uint32_t kLogitTokens = 8192;  // of the vocabulary, at a time

void check(const RowRounding& rounding) {
  if (rounding.bits != 0 && rounding.bits != 4 && rounding.bits != 8) {
    throw std::invalid_argument("activations have 4 or 8 bits, or 0 for binary32");
  }
  if (rounding.clip > 255) {
    throw std::invalid_argument("at most 255/256 of a range can be cut off");
  }
}

template <typename Body>
void for_rows(size_t rows, Workers& workers, const Body& body) {
  workers.run((rows + kTaskRows - 1) / kTaskRows, [&](size_t task) {
    const size_t end = std::min(rows, (task + 1) * kTaskRows);
    for (size_t row = task * kTaskRows; row < end; ++row) body(row);
  });
}

void require_finite(std::span<const float> values, const std::string& name) {
  if (!std::ranges::all_of(values, [](float v) { return std::isfinite(v); })) {
    throw formats::Error("tensor \"" + name + "\" has a value that is not finite");
  }
}

void add_bias(View rows, std::span<const float> bias, Workers& workers) {
  if (bias.empty()) return;
  for_rows(rows.rows, workers, [&](size_t r) {
    const std::span<float> row = rows.row(r);
    for (size_t i = 0; i < row.size(); ++i) row[i] += bias[i];
  });
}

std::string layer_prefix(uint32_t layer) { return "model.layers." + std::to_string(layer) + "."; }

}  // namespace

// Some consecutive windows of a batch, which pass a stage together.
struct FloatModel::Block {
  size_t first_window;
  size_t end_window;
  size_t first;  // row
  size_t rows;

  static std::vector<Block> cut(const TokenBatch& batch) {
    std::vector<Block> blocks;
    for (size_t w = 0; w < batch.windows(); ++w) {
      const size_t rows = batch.starts[w + 1] - batch.starts[w];
      if (!blocks.empty() && blocks.back().rows + rows <= kBlockTokens) {
        blocks.back().end_window = w + 1;
        blocks.back().rows += rows;
      } else {
        blocks.push_back({w, w + 1, batch.starts[w], rows});
      }
    }
    return blocks;
  }
};

RowRounding RowRounding::before(const kernels::Precision& precision) {
  return {4 * precision.activation_planes, precision.clip, precision.symmetric};
}

const RowRounding& ActivationRounding::of(Stage stage) const {
  switch (stage) {
    case Stage::qkv:
      return qkv;
    case Stage::o:
      return o;
    case Stage::gate_up:
      return gate_up;
    case Stage::down:
      break;
  }
  return down;
}

void LayerHook::revise(Stage, LayerWeights&) {}

FloatModel::FloatModel(const formats::Checkpoint& checkpoint, FloatOptions options,
                       Workers& workers)
    : checkpoint_(checkpoint),
      config_(checkpoint.config()),
      options_(std::move(options)),
      workers_(workers),
      frequencies_(formats::rope_frequencies(config_.rope, config_.head_dim)) {
  if (options_.activations.size() > 1 && options_.activations.size() != config_.layers) {
    throw std::invalid_argument("activation roundings for " +
                                std::to_string(options_.activations.size()) +
                                " layers; the model has " + std::to_string(config_.layers));
  }
  for (const ActivationRounding& rounding : options_.activations) {
    for (const Stage stage : kStages) check(rounding.of(stage));
  }
  check(options_.lm_head);
  const uint32_t probability = options_.probability_bits;
  if (probability != 0 && (!options_.int8_attention || (probability != 8 && probability != 16))) {
    throw std::invalid_argument("probabilities have 8 or 16 bits, and only with an INT8 cache");
  }
}

ActivationRounding FloatModel::activations(uint32_t layer) const {
  if (options_.activations.empty()) return {};
  return options_.activations.size() == 1 ? options_.activations[0]
                                          : options_.activations.at(layer);
}

// ---- weights -----------------------------------------------------------------------------------

// Rows [first, first + rows) of a matrix with `cols` columns.
Matrix FloatModel::load_matrix(const std::string& name, size_t first, size_t rows,
                               size_t cols) const {
  const formats::TensorInfo* info = checkpoint_.find(name);
  if (info == nullptr || info->shape.size() != 2 || info->shape[0] < first + rows ||
      info->shape[1] != cols) {
    throw formats::Error("tensor \"" + name + "\" is missing or has another shape");
  }
  Matrix matrix(rows, cols);
  checkpoint_.read_rows_f32(name, first, rows, matrix.elements());  // decorators like few pieces
  require_finite(matrix.elements(), name);
  return matrix;
}

std::vector<float> FloatModel::load_vector(const std::string& name, size_t size) const {
  std::vector<float> values = checkpoint_.read_f32(name);
  if (values.size() != size) throw formats::Error("tensor \"" + name + "\" has another shape");
  require_finite(values, name);
  return values;
}

LayerWeights FloatModel::load_layer(uint32_t layer) const {
  const std::string prefix = layer_prefix(layer);
  const std::string attention = prefix + "self_attn.";
  const size_t hidden = config_.hidden;
  const size_t q_rows = size_t{config_.heads} * config_.head_dim;
  const size_t kv_rows = size_t{config_.kv_heads} * config_.head_dim;
  LayerWeights w;
  w.q = load_matrix(attention + "q_proj.weight", 0, q_rows, hidden);
  w.k = load_matrix(attention + "k_proj.weight", 0, kv_rows, hidden);
  w.v = load_matrix(attention + "v_proj.weight", 0, kv_rows, hidden);
  w.o = load_matrix(attention + "o_proj.weight", 0, hidden, q_rows);
  w.gate = load_matrix(prefix + "mlp.gate_proj.weight", 0, config_.ffn, hidden);
  w.up = load_matrix(prefix + "mlp.up_proj.weight", 0, config_.ffn, hidden);
  w.down = load_matrix(prefix + "mlp.down_proj.weight", 0, hidden, config_.ffn);
  if (config_.attention_bias) {
    w.q_bias = load_vector(attention + "q_proj.bias", q_rows);
    w.k_bias = load_vector(attention + "k_proj.bias", kv_rows);
    w.v_bias = load_vector(attention + "v_proj.bias", kv_rows);
  }
  if (config_.qk_norm) {
    w.q_norm = load_vector(attention + "q_norm.weight", config_.head_dim);
    w.k_norm = load_vector(attention + "k_norm.weight", config_.head_dim);
  }
  w.attention_norm = load_vector(prefix + "input_layernorm.weight", hidden);
  w.ffn_norm = load_vector(prefix + "post_attention_layernorm.weight", hidden);
  if (options_.rotate_down) rotate_rows(w.down);
  return w;
}

void FloatModel::rotate_rows(View rows) const {
  const size_t block = hadamard_block(config_.ffn);
  const float scale = 1.0f / std::sqrt(static_cast<float>(block));
  for_rows(rows.rows, workers_, [&](size_t r) { walsh_hadamard(rows.row(r), block, scale); });
}

// ---- a layer -----------------------------------------------------------------------------------

TokenBatch FloatModel::embed(std::span<const std::span<const uint32_t>> windows) const {
  TokenBatch batch;
  std::vector<uint32_t> tokens;
  batch.starts.push_back(0);
  for (const std::span<const uint32_t> window : windows) {
    if (window.empty()) throw std::invalid_argument("a window without tokens");
    tokens.insert(tokens.end(), window.begin(), window.end());
    batch.starts.push_back(tokens.size());
  }
  batch.residual = Matrix(tokens.size(), config_.hidden);
  const std::string name = "model.embed_tokens.weight";
  for_rows(tokens.size(), workers_, [&](size_t row) {
    if (tokens[row] >= config_.vocab) {
      throw std::invalid_argument("token " + std::to_string(tokens[row]) +
                                  " is outside the vocabulary");
    }
    checkpoint_.read_rows_f32(name, tokens[row], 1, batch.residual.row(row));
    require_finite(batch.residual.row(row), name);
  });
  return batch;
}

void FloatModel::round_rows(View rows, const RowRounding& rounding) const {
  if (rounding.bits == 0) return;
  const kernels::ActivationGrid grid{(1u << rounding.bits) - 1, rounding.clip, rounding.symmetric};
  for_rows(rows.rows, workers_, [&](size_t r) { round_asymmetric(rows.row(r), grid); });
}

Matrix FloatModel::normed(ConstView rows, std::span<const float> gain) const {
  Matrix out(rows.rows, rows.cols);
  for_rows(rows.rows, workers_,
           [&](size_t r) { rms_norm(rows.row(r), gain, config_.rms_eps, out.row(r)); });
  return out;
}

Matrix FloatModel::stage_inputs(Stage stage, const TokenBatch& batch, const Block& block,
                                ConstView attended, const ActivationRounding& rounding,
                                const LayerWeights& weights) const {
  const ConstView residual = batch.residual.view().row_range(block.first, block.rows);
  Matrix inputs;
  switch (stage) {
    case Stage::qkv:
      inputs = normed(residual, weights.attention_norm);
      break;
    case Stage::o:
      inputs = Matrix(attended.rows, attended.cols);
      for (size_t r = 0; r < attended.rows; ++r) {
        std::ranges::copy(attended.row(r), inputs.row(r).begin());
      }
      break;
    case Stage::gate_up:
      inputs = normed(residual, weights.ffn_norm);
      break;
    case Stage::down: {
      Matrix h = normed(residual, weights.ffn_norm);
      round_rows(h, rounding.gate_up);
      inputs = Matrix(block.rows, config_.ffn);
      Matrix up(block.rows, config_.ffn);
      multiply_transposed(inputs, h, weights.gate, workers_);
      multiply_transposed(up, h, weights.up, workers_);
      for_rows(block.rows, workers_, [&](size_t r) { silu_times(inputs.row(r), up.row(r)); });
      if (options_.rotate_down) rotate_rows(inputs);
      break;
    }
  }
  round_rows(inputs, rounding.of(stage));
  return inputs;
}

void FloatModel::apply_stage(Stage stage, TokenBatch& batch, const Block& block, View attended,
                             ConstView inputs, const LayerWeights& weights) const {
  const View residual = batch.residual.view().row_range(block.first, block.rows);
  switch (stage) {
    case Stage::qkv: {
      Matrix q(block.rows, weights.q.rows());
      Matrix k(block.rows, weights.k.rows());
      Matrix v(block.rows, weights.v.rows());
      multiply_transposed(q, inputs, weights.q, workers_);
      multiply_transposed(k, inputs, weights.k, workers_);
      multiply_transposed(v, inputs, weights.v, workers_);
      add_bias(q, weights.q_bias, workers_);
      add_bias(k, weights.k_bias, workers_);
      add_bias(v, weights.v_bias, workers_);
      std::vector<size_t> starts(
          batch.starts.begin() + static_cast<std::ptrdiff_t>(block.first_window),
          batch.starts.begin() + static_cast<std::ptrdiff_t>(block.end_window + 1));
      for (size_t& start : starts) start -= block.first;
      const AttentionShape shape{
          config_.heads,   config_.kv_heads,        config_.head_dim,
          config_.rms_eps, options_.int8_attention, options_.probability_bits,
          weights.q_norm,  weights.k_norm,          frequencies_};
      attend(shape, starts, q, k, v, attended, workers_);
      break;
    }
    case Stage::o:
      multiply_transposed(residual, inputs, weights.o, workers_, {1, 1});
      break;
    case Stage::gate_up:
      break;  // its outputs are too many to keep: stage_inputs(down) makes them, block by block
    case Stage::down:
      multiply_transposed(residual, inputs, weights.down, workers_, {1, 1});
      break;
  }
}

void FloatModel::run_layer(TokenBatch& batch, uint32_t layer, LayerWeights& weights,
                           LayerHook* hook) const {
  const std::vector<Block> blocks = Block::cut(batch);
  const ActivationRounding rounding = activations(layer);
  const size_t width = size_t{config_.heads} * config_.head_dim;
  if (hook == nullptr) {
    for (const Block& block : blocks) {
      Matrix attended(block.rows, width);
      for (const Stage stage : {Stage::qkv, Stage::o, Stage::down}) {
        const Matrix inputs = stage_inputs(stage, batch, block, attended, rounding, weights);
        apply_stage(stage, batch, block, attended, inputs, weights);
      }
    }
    return;
  }
  Matrix attended(batch.tokens(), width);
  for (const Stage stage : kStages) {
    Matrix kept;  // with one block, its inputs need not be computed again
    for (const Block& block : blocks) {
      const View part = attended.view().row_range(block.first, block.rows);
      kept = stage_inputs(stage, batch, block, part, rounding, weights);
      hook->inputs(stage, kept);
    }
    hook->revise(stage, weights);
    for (const Block& block : blocks) {
      const View part = attended.view().row_range(block.first, block.rows);
      if (blocks.size() > 1) kept = stage_inputs(stage, batch, block, part, rounding, weights);
      apply_stage(stage, batch, block, part, kept, weights);
    }
  }
}

void FloatModel::run_layer(TokenBatch& batch, uint32_t layer) const {
  LayerWeights weights = load_layer(layer);
  run_layer(batch, layer, weights);
}

TokenBatch FloatModel::run(
    std::span<const std::span<const uint32_t>> windows,
    const std::function<void(uint32_t, const TokenBatch&)>& after_layer) const {
  TokenBatch batch = embed(windows);
  for (uint32_t layer = 0; layer < config_.layers; ++layer) {
    run_layer(batch, layer);
    if (after_layer) after_layer(layer, batch);
  }
  return batch;
}

// ---- the head ----------------------------------------------------------------------------------

Matrix FloatModel::head_inputs(const TokenBatch& batch) const {
  Matrix rows = normed(batch.residual, load_vector("model.norm.weight", config_.hidden));
  round_rows(rows, options_.lm_head);
  return rows;
}

Matrix FloatModel::logits(ConstView inputs, uint32_t first, uint32_t tokens) const {
  const std::string name = config_.tied_embeddings ? "model.embed_tokens.weight" : "lm_head.weight";
  const Matrix weights = load_matrix(name, first, tokens, config_.hidden);
  Matrix out(inputs.rows, tokens);
  multiply_transposed(out, inputs, weights, workers_);
  return out;
}

void FloatModel::for_logits(
    ConstView inputs,
    const std::function<void(uint32_t first_token, ConstView logits)>& body) const {
  for (uint32_t first = 0; first < config_.vocab; first += kLogitTokens) {
    body(first, logits(inputs, first, std::min(kLogitTokens, config_.vocab - first)));
  }
}

}  // namespace flexllm::quantizer
