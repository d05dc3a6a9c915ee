// One tiny Llama, written as a GGUF file and as a Hugging Face folder. Its values are multiples of
// 1/64 from -2 to 127/64, so F32, F16, BF16 and Q8_0 all hold them exactly and both kinds of
// checkpoint must give the same floats.
#pragma once

#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "formats/tests/gguf_builder.h"

namespace flexllm::formats::testing {

inline constexpr uint64_t kLayers = 2, kHidden = 32, kFfn = 64, kHeads = 4, kKvHeads = 2;
inline constexpr uint64_t kHeadDim = 8, kVocab = 12;

// The canonical tensor's values, from its name alone.
std::vector<float> tiny_values(std::string_view canonical_name, uint64_t elements);

// Encodes values (multiples of 1/64, as above) in a type of GGUF: 0 F32, 1 F16, 8 Q8_0, 30 BF16.
std::string encode(const std::vector<float>& values, uint32_t gguf_type);

// llama: q and k in interleaved order, weights in `weights_type`. qwen2 has biases, qwen3 q/k
// norms.
GgufBuilder tiny_gguf(uint32_t weights_type = 8, const std::string& architecture = "llama");

// A file of a safetensors shard: header and data, in the order given.
struct RawTensor {
  std::string name;
  std::string type;
  std::vector<uint64_t> shape;
  std::string data;
};
std::string raw_safetensors(const std::vector<RawTensor>& tensors);

// File name -> content: config.json, generation_config.json, model.safetensors, tokenizer.json,
// tokenizer_config.json.
using Files = std::map<std::string, std::string>;
Files tiny_folder(const std::string& type = "BF16");
std::vector<RawTensor> tiny_tensors(const std::string& type);

}  // namespace flexllm::formats::testing
