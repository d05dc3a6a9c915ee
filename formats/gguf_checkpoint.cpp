#include <charconv>
#include <limits>
#include <set>

#include "formats/error.h"
#include "formats/gguf.h"
#include "formats/gguf_tokenizer.h"
#include "formats/stored_checkpoint.h"

namespace flexllm::formats {
namespace {

struct NamePair {
  std::string_view gguf;
  std::string_view canonical;
};

constexpr NamePair kModelNames[] = {
    {"token_embd.weight", "model.embed_tokens.weight"},
    {"output_norm.weight", "model.norm.weight"},
    {"output.weight", "lm_head.weight"},
};

// After "blk.N." and "model.layers.N.".
constexpr NamePair kLayerNames[] = {
    {"attn_norm.weight", "input_layernorm.weight"},
    {"attn_q.weight", "self_attn.q_proj.weight"},
    {"attn_k.weight", "self_attn.k_proj.weight"},
    {"attn_v.weight", "self_attn.v_proj.weight"},
    {"attn_q.bias", "self_attn.q_proj.bias"},
    {"attn_k.bias", "self_attn.k_proj.bias"},
    {"attn_v.bias", "self_attn.v_proj.bias"},
    {"attn_q_norm.weight", "self_attn.q_norm.weight"},
    {"attn_k_norm.weight", "self_attn.k_norm.weight"},
    {"attn_output.weight", "self_attn.o_proj.weight"},
    {"ffn_norm.weight", "post_attention_layernorm.weight"},
    {"ffn_gate.weight", "mlp.gate_proj.weight"},
    {"ffn_up.weight", "mlp.up_proj.weight"},
    {"ffn_down.weight", "mlp.down_proj.weight"},
};

constexpr std::string_view kRopeFactors = "rope_freqs.weight";
constexpr std::string_view kLayerPrefix = "model.layers.";

// "model.layers.3.mlp.up_proj.weight" -> "blk.3.ffn_up.weight"
std::string gguf_name(std::string_view canonical) {
  for (const auto& [gguf, name] : kModelNames) {
    if (name == canonical) return std::string(gguf);
  }
  canonical.remove_prefix(kLayerPrefix.size());
  const size_t dot = canonical.find('.');
  for (const auto& [gguf, name] : kLayerNames) {
    if (name == canonical.substr(dot + 1)) {
      return "blk." + std::string(canonical.substr(0, dot + 1)) + std::string(gguf);
    }
  }
  return {};
}

class Loader {
 public:
  explicit Loader(const std::filesystem::path& path)
      : file_(std::make_shared<const GgufFile>(path)) {}

  std::unique_ptr<Checkpoint> load() {
    architecture_ = required_string("general.architecture");
    if (architecture_ != "llama" && architecture_ != "qwen2" && architecture_ != "qwen3") {
      fail("key 'general.architecture'",
           "architecture '" + architecture_ + "' is not supported; expected llama, qwen2 or qwen3");
    }
    refuse_unsupported_keys();
    CheckpointParts parts;
    parts.path = file_->path();
    parts.config = read_config();
    check_config(parts.path, parts.config);
    parts.tokenizer = read_gguf_tokenizer(*file_, parts.config.vocab);
    parts.generation.eos_token_ids = read_gguf_eos_ids(*file_, parts.config.vocab);
    parts.files = file_;
    // Files of the llama architecture hold q and k for RoPE over neighbouring rows.
    const uint32_t interleaved = architecture_ == "llama" ? parts.config.head_dim : 0;
    std::set<std::string, std::less<>> used;
    parts.locate = [&](const std::string& canonical) {
      const GgufTensor* tensor = file_->find_tensor(gguf_name(canonical));
      if (tensor == nullptr) return StoredTensor{};
      used.emplace(tensor->name);
      const bool q_or_k = canonical.find(".q_proj.") != std::string::npos ||
                          canonical.find(".k_proj.") != std::string::npos;
      return StoredTensor{tensor->shape, tensor->type, tensor->data, q_or_k ? interleaved : 0};
    };
    auto checkpoint = assemble_checkpoint(std::move(parts));
    for (const GgufTensor& tensor : file_->tensors()) {
      if (tensor.name != kRopeFactors && !used.contains(tensor.name)) {
        fail("tensor '" + std::string(tensor.name) + "'",
             "a model of architecture '" + architecture_ + "' of this shape has no such tensor");
      }
    }
    return checkpoint;
  }

 private:
  [[noreturn]] void fail(std::string_view place, std::string_view what) const {
    throw Error(file_->path(), place, what);
  }

  std::string key(std::string_view name) const { return architecture_ + "." + std::string(name); }

  std::string required_string(std::string_view name) const {
    const auto value = file_->find_string(name);
    if (!value) fail("key '" + std::string(name) + "'", "it is missing");
    return std::string(*value);
  }

  std::optional<uint32_t> optional_u32(std::string_view name) const {
    const auto value = file_->find_uint(name);
    if (!value) return std::nullopt;
    if (*value > std::numeric_limits<uint32_t>::max()) {
      fail("key '" + std::string(name) + "'", "expected a number below 2^32");
    }
    return static_cast<uint32_t>(*value);
  }

  uint32_t required_u32(std::string_view name) const {
    const auto value = optional_u32(name);
    if (!value) fail("key '" + std::string(name) + "'", "it is missing");
    return *value;
  }

  // Features that would silently change the result when ignored.
  void refuse_unsupported_keys() const {
    if (file_->find_uint(key("expert_count")).value_or(0) > 0) {
      fail("key '" + key("expert_count") + "'", "mixture-of-experts models are not supported");
    }
    for (const std::string_view name :
         {"attention.sliding_window", "logit_scale", "residual_scale", "embedding_scale",
          "attention.scale", "final_logit_softcapping", "attn_logit_softcapping"}) {
      if (const auto value = file_->find_number(key(name)); value.value_or(0) != 0) {
        fail("key '" + key(name) + "'", "this feature is not supported");
      }
    }
  }

  ModelConfig read_config() const {
    ModelConfig config;
    config.name = file_->find_string("general.name").value_or(file_->path().stem().string());
    config.layers = required_u32(key("block_count"));
    config.hidden = required_u32(key("embedding_length"));
    config.ffn = required_u32(key("feed_forward_length"));
    config.heads = required_u32(key("attention.head_count"));
    config.kv_heads = optional_u32(key("attention.head_count_kv")).value_or(config.heads);
    config.context_length = required_u32(key("context_length"));
    const auto epsilon = file_->find_number(key("attention.layer_norm_rms_epsilon"));
    if (!epsilon) fail("key '" + key("attention.layer_norm_rms_epsilon") + "'", "it is missing");
    config.rms_eps = static_cast<float>(*epsilon);
    config.head_dim = read_head_dim(config);
    config.vocab = read_vocab();
    config.tied_embeddings = file_->find_tensor("output.weight") == nullptr;
    config.attention_bias =
        architecture_ == "qwen2" || file_->find_tensor("blk.0.attn_q.bias") != nullptr;
    config.qk_norm = architecture_ == "qwen3";
    config.rope = read_rope();
    return config;
  }

  uint32_t read_head_dim(const ModelConfig& config) const {
    auto head_dim = optional_u32(key("attention.key_length"));
    if (!head_dim) {
      if (config.heads == 0 || config.hidden % config.heads != 0) {
        fail("key '" + key("attention.head_count") + "'", "expected a divisor of the hidden size");
      }
      head_dim = config.hidden / config.heads;
    }
    for (const std::string_view name : {"attention.value_length", "rope.dimension_count"}) {
      if (const auto other = optional_u32(key(name)); other && *other != *head_dim) {
        fail("key '" + key(name) + "'", "expected " + std::to_string(*head_dim) +
                                            ", the length of a key, found " +
                                            std::to_string(*other));
      }
    }
    return *head_dim;
  }

  uint32_t read_vocab() const {
    const GgufTensor* embedding = file_->find_tensor("token_embd.weight");
    if (embedding == nullptr) fail("tensor 'token_embd.weight'", "it is missing");
    const uint64_t rows = embedding->shape.front();
    if (rows > std::numeric_limits<int32_t>::max()) {
      fail("tensor 'token_embd.weight'", "expected fewer than 2^31 rows");
    }
    if (const auto stated = file_->find_uint(key("vocab_size")); stated.value_or(rows) != rows) {
      fail("key '" + key("vocab_size") + "'",
           "expected " + std::to_string(rows) + ", the rows of token_embd.weight");
    }
    return static_cast<uint32_t>(rows);
  }

  RopeConfig read_rope() const {
    RopeConfig rope;
    rope.theta = file_->find_number(key("rope.freq_base")).value_or(10000.0);
    const std::string type(file_->find_string(key("rope.scaling.type")).value_or("none"));
    if (type == "linear") {
      rope.scaling = RopeConfig::Scaling::linear;
      rope.factor = file_->find_number(key("rope.scaling.factor")).value_or(1.0);
    } else if (type != "none") {
      fail("key '" + key("rope.scaling.type") + "'",
           "RoPE scaling '" + type + "' is not supported; expected none or linear");
    } else if (const auto factor = file_->find_number(key("rope.scale_linear"))) {
      rope.scaling = RopeConfig::Scaling::linear;  // as files of 2023 say it
      rope.factor = *factor;
    }
    if (const GgufTensor* factors = file_->find_tensor(kRopeFactors)) {
      if (factors->type != DType::f32 || factors->shape.size() != 1) {
        fail("tensor 'rope_freqs.weight'", "expected a vector of F32");
      }
      rope.frequency_factors.resize(factors->shape.front());
      to_f32(factors->type, factors->data, rope.frequency_factors);
    }
    return rope;
  }

  std::shared_ptr<const GgufFile> file_;
  std::string architecture_;
};

}  // namespace

std::unique_ptr<Checkpoint> open_gguf_checkpoint(const std::filesystem::path& path) {
  return Loader(path).load();
}

}  // namespace flexllm::formats
