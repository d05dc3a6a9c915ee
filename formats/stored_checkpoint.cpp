#include "formats/stored_checkpoint.h"

#include <unordered_map>
#include <utility>

#include "formats/error.h"

namespace flexllm::formats {
namespace {

std::string to_text(std::span<const uint64_t> shape) {
  std::string text = "[";
  for (const uint64_t dimension : shape) {
    if (text.size() > 1) text += ", ";
    text += std::to_string(dimension);
  }
  return text + "]";
}

class StoredCheckpoint final : public Checkpoint {
 public:
  explicit StoredCheckpoint(CheckpointParts parts) : parts_(std::move(parts)) {
    add_expected_tensors();
    parts_.locate = nullptr;
    for (size_t i = 0; i < tensors_.size(); ++i) index_.emplace(tensors_[i].name, i);
  }

  const ModelConfig& config() const override { return parts_.config; }
  const GenerationDefaults& generation_defaults() const override { return parts_.generation; }
  const TokenizerSource& tokenizer() const override { return parts_.tokenizer; }
  std::span<const TensorInfo> tensors() const override { return tensors_; }

  const TensorInfo* find(std::string_view name) const override {
    const auto found = index_.find(name);
    return found == index_.end() ? nullptr : &tensors_[found->second];
  }

  void read_rows_f32(std::string_view name, uint64_t first_row, uint64_t n_rows,
                     std::span<float> out) const override {
    const auto found = index_.find(name);
    if (found == index_.end()) {
      throw Error(parts_.path, "tensor '" + std::string(name) + "'", "there is none of that name");
    }
    const StoredTensor& tensor = stored_[found->second];
    const uint64_t rows = tensor.shape.front();
    const uint64_t width = tensor.shape.size() == 1 ? 1 : tensor.shape.back();
    if (first_row > rows || n_rows > rows - first_row || out.size() != n_rows * width) {
      throw Error(parts_.path, "tensor '" + std::string(name) + "' of " + to_text(tensor.shape),
                  "rows " + std::to_string(first_row) + " to " +
                      std::to_string(first_row + n_rows) + " do not fit or do not fill " +
                      std::to_string(out.size()) + " floats");
    }
    const uint64_t row_bytes = tensor.data.size() / rows;
    if (tensor.interleaved_head_dim == 0) {
      to_f32(tensor.type, tensor.data.subspan(first_row * row_bytes, n_rows * row_bytes), out);
      return;
    }
    const uint64_t head_dim = tensor.interleaved_head_dim;
    for (uint64_t i = 0; i < n_rows; ++i) {
      const uint64_t row = first_row + i;
      const uint64_t in_head = row % head_dim;
      const uint64_t pair = in_head % (head_dim / 2);
      const uint64_t second = in_head / (head_dim / 2);
      const uint64_t stored_row = row - in_head + 2 * pair + second;
      to_f32(tensor.type, tensor.data.subspan(stored_row * row_bytes, row_bytes),
             out.subspan(i * width, width));
    }
  }

 private:
  void add_expected_tensors() {
    const ModelConfig& c = parts_.config;
    const uint64_t q = uint64_t{c.heads} * c.head_dim;
    const uint64_t kv = uint64_t{c.kv_heads} * c.head_dim;
    add("model.embed_tokens.weight", {c.vocab, c.hidden});
    for (uint32_t i = 0; i < c.layers; ++i) {
      const std::string layer = "model.layers." + std::to_string(i) + ".";
      add(layer + "input_layernorm.weight", {c.hidden});
      add(layer + "self_attn.q_proj.weight", {q, c.hidden});
      add(layer + "self_attn.k_proj.weight", {kv, c.hidden});
      add(layer + "self_attn.v_proj.weight", {kv, c.hidden});
      if (c.attention_bias) {
        add(layer + "self_attn.q_proj.bias", {q});
        add(layer + "self_attn.k_proj.bias", {kv});
        add(layer + "self_attn.v_proj.bias", {kv});
      }
      if (c.qk_norm) {
        add(layer + "self_attn.q_norm.weight", {c.head_dim});
        add(layer + "self_attn.k_norm.weight", {c.head_dim});
      }
      add(layer + "self_attn.o_proj.weight", {c.hidden, q});
      add(layer + "post_attention_layernorm.weight", {c.hidden});
      add(layer + "mlp.gate_proj.weight", {c.ffn, c.hidden});
      add(layer + "mlp.up_proj.weight", {c.ffn, c.hidden});
      add(layer + "mlp.down_proj.weight", {c.hidden, c.ffn});
    }
    add("model.norm.weight", {c.hidden});
    if (!c.tied_embeddings) add("lm_head.weight", {c.vocab, c.hidden});
  }

  void add(std::string name, std::vector<uint64_t> shape) {
    StoredTensor tensor = parts_.locate(name);
    const std::string place = "tensor '" + name + "'";
    if (tensor.shape.empty()) throw Error(parts_.path, place, "it is missing");
    if (tensor.shape != shape) {
      throw Error(parts_.path, place,
                  "expected shape " + to_text(shape) + ", found " + to_text(tensor.shape));
    }
    if (!converts_to_f32(tensor.type) ||
        (shape.size() == 1 && block_size(tensor.type).elements != 1)) {
      throw Error(parts_.path, place,
                  "type " + std::string(name_of(tensor.type)) + " does not suit it");
    }
    tensors_.push_back({std::move(name), std::move(shape), tensor.type});
    stored_.push_back(std::move(tensor));
  }

  CheckpointParts parts_;
  std::vector<TensorInfo> tensors_;
  std::vector<StoredTensor> stored_;  // parallel to tensors_
  std::unordered_map<std::string_view, size_t> index_;
};

}  // namespace

std::unique_ptr<Checkpoint> assemble_checkpoint(CheckpointParts parts) {
  check_config(parts.path, parts.config);
  return std::make_unique<StoredCheckpoint>(std::move(parts));
}

void check_config(const std::filesystem::path& path, const ModelConfig& config) {
  const auto require = [&](bool condition, std::string_view what) {
    if (!condition) throw Error(path, "model configuration", what);
  };
  require(config.layers > 0, "expected at least one layer");
  require(config.hidden > 0, "expected a hidden size above zero");
  require(config.ffn > 0, "expected a feed-forward size above zero");
  require(config.vocab > 0, "expected a vocabulary");
  require(config.context_length > 0, "expected a context length above zero");
  require(config.heads > 0 && config.kv_heads > 0 && config.heads % config.kv_heads == 0,
          "expected query heads to be a multiple of key-value heads");
  require(config.head_dim > 0 && config.head_dim % 2 == 0, "expected an even head dimension");
  require(config.rms_eps > 0 && config.rms_eps < 1, "expected an RMSNorm epsilon in (0, 1)");
  require(config.rope.theta > 0, "expected a RoPE base above zero");
  require(config.rope.factor > 0, "expected a RoPE scaling factor above zero");
  if (config.rope.scaling == RopeConfig::Scaling::llama3) {
    require(config.rope.low_freq_factor > 0 &&
                config.rope.high_freq_factor > config.rope.low_freq_factor,
            "expected 0 < low_freq_factor < high_freq_factor");
    require(config.rope.original_context_length > 0,
            "expected an original context length above zero");
  }
  if (!config.rope.frequency_factors.empty()) {
    require(config.rope.frequency_factors.size() == config.head_dim / 2,
            "expected one RoPE frequency factor for each pair of a head");
    for (const float factor : config.rope.frequency_factors) {
      require(factor > 0 && factor <= 1e9f, "expected RoPE frequency factors in (0, 1e9]");
    }
  }
}

}  // namespace flexllm::formats
