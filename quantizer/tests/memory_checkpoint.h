// A checkpoint of random weights in memory, for tests.
#pragma once

#include <algorithm>
#include <cmath>
#include <map>
#include <random>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "formats/checkpoint.h"
#include "formats/error.h"

namespace flexllm::quantizer::testing {

// A small model with grouped queries, whose sizes fill no tile.
inline formats::ModelConfig tiny_config() {
  formats::ModelConfig config;
  config.name = "tiny";
  config.layers = 3;
  config.hidden = 48;
  config.ffn = 96;
  config.heads = 6;
  config.kv_heads = 2;
  config.head_dim = 8;
  config.vocab = 70;
  config.context_length = 64;
  return config;
}

class MemoryCheckpoint : public formats::Checkpoint {
 public:
  explicit MemoryCheckpoint(formats::ModelConfig config, uint32_t seed = 1)
      : config_(std::move(config)), random_(seed) {
    const uint64_t hidden = config_.hidden;
    const uint64_t q = uint64_t{config_.heads} * config_.head_dim;
    const uint64_t kv = uint64_t{config_.kv_heads} * config_.head_dim;
    add("model.embed_tokens.weight", {config_.vocab, hidden}, 0, 1);
    add("model.norm.weight", {hidden}, 1, 0.3f);
    if (!config_.tied_embeddings) matrix("lm_head.weight", config_.vocab, hidden);
    for (uint32_t layer = 0; layer < config_.layers; ++layer) {
      const std::string prefix = "model.layers." + std::to_string(layer) + ".";
      add(prefix + "input_layernorm.weight", {hidden}, 1, 0.3f);
      add(prefix + "post_attention_layernorm.weight", {hidden}, 1, 0.3f);
      for (const auto& [name, rows] : {std::pair{"q", q}, {"k", kv}, {"v", kv}}) {
        const std::string part = prefix + "self_attn." + name;
        matrix(part + "_proj.weight", rows, hidden);
        if (config_.attention_bias) add(part + "_proj.bias", {rows}, 0, 0.3f);
      }
      matrix(prefix + "self_attn.o_proj.weight", hidden, q);
      if (config_.qk_norm) {
        add(prefix + "self_attn.q_norm.weight", {config_.head_dim}, 1, 0.3f);
        add(prefix + "self_attn.k_norm.weight", {config_.head_dim}, 1, 0.3f);
      }
      matrix(prefix + "mlp.gate_proj.weight", config_.ffn, hidden);
      matrix(prefix + "mlp.up_proj.weight", config_.ffn, hidden);
      matrix(prefix + "mlp.down_proj.weight", hidden, config_.ffn);
    }
  }

  std::vector<float>& values(const std::string& name) { return values_.at(name); }
  void remove(const std::string& name) {
    std::erase_if(infos_, [&](const formats::TensorInfo& info) { return info.name == name; });
    values_.erase(name);
  }

  const formats::ModelConfig& config() const override { return config_; }
  const formats::GenerationDefaults& generation_defaults() const override { return generation_; }
  const formats::TokenizerSource& tokenizer() const override { return tokenizer_; }
  std::span<const formats::TensorInfo> tensors() const override { return infos_; }
  const formats::TensorInfo* find(std::string_view name) const override {
    for (const formats::TensorInfo& info : infos_) {
      if (info.name == name) return &info;
    }
    return nullptr;
  }
  void read_rows_f32(std::string_view name, uint64_t first_row, uint64_t n_rows,
                     std::span<float> out) const override {
    const formats::TensorInfo* info = find(name);
    if (info == nullptr) throw formats::Error("no tensor " + std::string(name));
    const auto& all = values_.at(std::string(name));
    const uint64_t row = all.size() / info->shape[0];
    if (out.size() != n_rows * row || (first_row + n_rows) * row > all.size()) {
      throw formats::Error("rows outside " + std::string(name));
    }
    std::copy_n(all.begin() + static_cast<std::ptrdiff_t>(first_row * row), out.size(),
                out.begin());
  }

 private:
  void matrix(const std::string& name, uint64_t rows, uint64_t cols) {
    add(name, {rows, cols}, 0, 1 / std::sqrt(static_cast<float>(cols)));
  }
  void add(const std::string& name, std::vector<uint64_t> shape, float mean, float deviation) {
    uint64_t elements = 1;
    for (const uint64_t size : shape) elements *= size;
    std::normal_distribution<float> normal(mean, deviation);
    std::vector<float>& values = values_[name];
    for (uint64_t i = 0; i < elements; ++i) values.push_back(normal(random_));
    infos_.push_back({name, std::move(shape), formats::DType::f32});
  }

  formats::ModelConfig config_;
  formats::GenerationDefaults generation_;
  formats::TokenizerSource tokenizer_;
  std::mt19937 random_;
  std::vector<formats::TensorInfo> infos_;
  std::map<std::string, std::vector<float>> values_;
};

}  // namespace flexllm::quantizer::testing
