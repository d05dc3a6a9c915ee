// The architecture of a Llama-family model, as every room sees it. A plain value: copy it freely.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace flexllm::formats {

// Rotary position embedding. `kind` other than `none` is Llama-3's frequency scaling.
struct RopeConfig {
  enum class Scaling { none, linear, llama3 };
  double theta = 10000.0;
  Scaling scaling = Scaling::none;
  double factor = 1.0;                      // linear and llama3
  double low_freq_factor = 1.0;             // llama3
  double high_freq_factor = 4.0;            // llama3
  uint32_t original_context_length = 8192;  // llama3
  std::vector<float>
      frequency_factors;  // head_dim/2 divisors of the frequencies, or empty (GGUF rope_freqs)
};

// The angle, in radians per position, by which each of the head_dim/2 pairs of a head turns: theta
// ^ (-2 i / head_dim), scaled as `rope` says. Llama 3's scaling divides low frequencies by
// `factor`, keeps high ones, and blends between (wavelengths of original_context_length /
// high_freq_factor to / low_freq_factor). `frequency_factors` divide on top.
std::vector<double> rope_frequencies(const RopeConfig& rope, uint32_t head_dim);

// Shapes are of the unpadded model. Every linear is stored [out][in], row-major.
struct ModelConfig {
  std::string name;
  uint32_t layers = 0;
  uint32_t hidden = 0;  // d
  uint32_t ffn = 0;
  uint32_t heads = 0;
  uint32_t kv_heads = 0;
  uint32_t head_dim = 0;
  uint32_t vocab = 0;
  uint32_t context_length = 0;
  float rms_eps = 1e-5f;
  bool tied_embeddings = false;
  bool attention_bias = false;  // q, k, v rows carry a bias
  bool qk_norm = false;         // RMSNorm over head_dim on q and k before RoPE
  RopeConfig rope;
};

// Defaults for sampling that come with a checkpoint (generation_config.json); absent when it says
// nothing.
struct GenerationDefaults {
  std::optional<float> temperature;
  std::optional<float> top_p;
  std::optional<uint32_t> top_k;
  std::optional<float> repetition_penalty;
  std::vector<uint32_t> eos_token_ids;
};

}  // namespace flexllm::formats
