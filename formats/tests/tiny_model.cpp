#include "formats/tests/tiny_model.h"

#include <bit>
#include <cmath>
#include <nlohmann/json.hpp>

namespace flexllm::formats::testing {
namespace {

struct Named {
  std::string gguf;
  std::string canonical;
  std::vector<uint64_t> shape;
};

std::vector<Named> names(bool bias, bool qk_norm) {
  const uint64_t q = kHeads * kHeadDim;
  const uint64_t kv = kKvHeads * kHeadDim;
  std::vector<Named> all = {{"token_embd.weight", "model.embed_tokens.weight", {kVocab, kHidden}}};
  for (uint64_t i = 0; i < kLayers; ++i) {
    const std::string block = "blk." + std::to_string(i) + ".";
    const std::string layer = "model.layers." + std::to_string(i) + ".";
    const auto add = [&](const char* gguf, const char* canonical, std::vector<uint64_t> shape) {
      all.push_back({block + gguf, layer + canonical, std::move(shape)});
    };
    add("attn_norm.weight", "input_layernorm.weight", {kHidden});
    add("attn_q.weight", "self_attn.q_proj.weight", {q, kHidden});
    add("attn_k.weight", "self_attn.k_proj.weight", {kv, kHidden});
    add("attn_v.weight", "self_attn.v_proj.weight", {kv, kHidden});
    if (bias) {
      add("attn_q.bias", "self_attn.q_proj.bias", {q});
      add("attn_k.bias", "self_attn.k_proj.bias", {kv});
      add("attn_v.bias", "self_attn.v_proj.bias", {kv});
    }
    if (qk_norm) {
      add("attn_q_norm.weight", "self_attn.q_norm.weight", {kHeadDim});
      add("attn_k_norm.weight", "self_attn.k_norm.weight", {kHeadDim});
    }
    add("attn_output.weight", "self_attn.o_proj.weight", {kHidden, q});
    add("ffn_norm.weight", "post_attention_layernorm.weight", {kHidden});
    add("ffn_gate.weight", "mlp.gate_proj.weight", {kFfn, kHidden});
    add("ffn_up.weight", "mlp.up_proj.weight", {kFfn, kHidden});
    add("ffn_down.weight", "mlp.down_proj.weight", {kHidden, kFfn});
  }
  all.push_back({"output_norm.weight", "model.norm.weight", {kHidden}});
  all.push_back({"output.weight", "lm_head.weight", {kVocab, kHidden}});
  return all;
}

uint64_t product(const std::vector<uint64_t>& shape) {
  uint64_t elements = 1;
  for (const uint64_t dimension : shape) elements *= dimension;
  return elements;
}

// The order that converters give q and k of llama files: within a head, row (s, j) of two halves
// becomes row (j, s).
std::vector<float> interleave(const std::vector<float>& values, uint64_t width) {
  std::vector<float> result(values.size());
  const uint64_t heads = values.size() / width / kHeadDim;
  for (uint64_t h = 0; h < heads; ++h) {
    for (uint64_t s = 0; s < 2; ++s) {
      for (uint64_t j = 0; j < kHeadDim / 2; ++j) {
        for (uint64_t c = 0; c < width; ++c) {
          result[(h * kHeadDim + 2 * j + s) * width + c] =
              values[(h * kHeadDim + s * kHeadDim / 2 + j) * width + c];
        }
      }
    }
  }
  return result;
}

// Of a multiple of 1/64 below 2: seven significant bits, so exact.
uint16_t to_half(float value) {
  if (value == 0) return 0;
  int exponent = 0;
  const float fraction = std::frexp(std::abs(value), &exponent);  // in [0.5, 1)
  const auto mantissa = static_cast<uint16_t>((fraction * 2 - 1) * 1024);
  const auto biased = static_cast<uint16_t>((exponent + 14) << 10);
  return static_cast<uint16_t>((value < 0 ? 0x8000 : 0) | biased | mantissa);
}

const std::vector<std::string> kTokens = {"<|end|>", "<|user|>", "a", "b", "c",  "ab",
                                          "Ġ",       "Ġa",       "d", "e", "de", "<think>"};

}  // namespace

std::vector<float> tiny_values(std::string_view canonical_name, uint64_t elements) {
  uint64_t state = 1469598103934665603u;
  for (const char c : canonical_name)
    state = (state ^ static_cast<unsigned char>(c)) * 1099511628211u;
  std::vector<float> values;
  for (uint64_t i = 0; i < elements; ++i) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    values.push_back(static_cast<float>(static_cast<int8_t>(state >> 56)) / 64.0f);
  }
  return values;
}

std::string encode(const std::vector<float>& values, uint32_t gguf_type) {
  std::string bytes;
  for (size_t i = 0; i < values.size(); ++i) {
    if (gguf_type == 0) bytes += bytes_of(values[i]);
    if (gguf_type == 1) bytes += bytes_of(to_half(values[i]));
    if (gguf_type == 30) {
      bytes += bytes_of(static_cast<uint16_t>(std::bit_cast<uint32_t>(values[i]) >> 16));
    }
    if (gguf_type == 8) {
      if (i % 32 == 0) bytes += bytes_of(to_half(1.0f / 64));
      bytes += bytes_of(static_cast<int8_t>(values[i] * 64));
    }
  }
  return bytes;
}

GgufBuilder tiny_gguf(uint32_t weights_type, const std::string& architecture) {
  GgufBuilder file;
  const std::string arch = architecture + ".";
  file.set_string("general.architecture", architecture);
  file.set_string("general.name", "tiny");
  file.set_u32(arch + "block_count", kLayers);
  file.set_u32(arch + "embedding_length", kHidden);
  file.set_u32(arch + "feed_forward_length", kFfn);
  file.set_u32(arch + "attention.head_count", kHeads);
  file.set_u32(arch + "attention.head_count_kv", kKvHeads);
  file.set_u32(arch + "context_length", 256);
  file.set_f32(arch + "attention.layer_norm_rms_epsilon", 1e-5f);
  file.set_f32(arch + "rope.freq_base", 100000.0f);
  file.set_string("tokenizer.ggml.model", "gpt2");
  file.set_string("tokenizer.ggml.pre", "smollm");
  file.set_strings("tokenizer.ggml.tokens", kTokens);
  std::vector<int32_t> types(kTokens.size(), 1);
  types[0] = types[1] = 3;
  types[11] = 4;
  file.set_array("tokenizer.ggml.token_type", 5, types.size(), bytes_of_all(types));
  file.set_strings("tokenizer.ggml.merges", {"a b", "Ġ a", "d e"});
  file.set_u32("tokenizer.ggml.bos_token_id", 1);
  file.set_u32("tokenizer.ggml.eos_token_id", 0);
  file.set_bool("tokenizer.ggml.add_bos_token", false);
  file.set_string("tokenizer.chat_template", "{{ messages }}");
  const bool interleaved = architecture == "llama";
  for (const auto& [gguf, canonical, shape] :
       names(architecture == "qwen2", architecture == "qwen3")) {
    std::vector<float> values = tiny_values(canonical, product(shape));
    const bool q_or_k =
        gguf.find("attn_q.") != std::string::npos || gguf.find("attn_k.") != std::string::npos;
    if (interleaved && q_or_k) values = interleave(values, shape.size() == 1 ? 1 : shape[1]);
    const uint32_t type = shape.size() == 1 ? 0 : weights_type;
    file.tensors.push_back({gguf, shape, type, encode(values, type)});
  }
  return file;
}

std::string raw_safetensors(const std::vector<RawTensor>& tensors) {
  nlohmann::ordered_json header = nlohmann::ordered_json::object();
  std::string data;
  for (const RawTensor& tensor : tensors) {
    header[tensor.name] = {{"dtype", tensor.type},
                           {"shape", tensor.shape},
                           {"data_offsets", {data.size(), data.size() + tensor.data.size()}}};
    data += tensor.data;
  }
  const std::string text = header.dump();
  return bytes_of(uint64_t{text.size()}) + text + data;
}

std::vector<RawTensor> tiny_tensors(const std::string& type) {
  const uint32_t code = type == "F32" ? 0 : type == "F16" ? 1 : 30;
  std::vector<RawTensor> tensors;
  for (const auto& [gguf, canonical, shape] : names(false, false)) {
    tensors.push_back(
        {canonical, type, shape, encode(tiny_values(canonical, product(shape)), code)});
  }
  return tensors;
}

Files tiny_folder(const std::string& type) {
  Files files;
  files["model.safetensors"] = raw_safetensors(tiny_tensors(type));
  files["config.json"] = R"({
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu",
    "num_hidden_layers": 2, "hidden_size": 32, "intermediate_size": 64,
    "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 12,
    "max_position_embeddings": 256, "rms_norm_eps": 1e-05, "rope_theta": 100000.0,
    "rope_scaling": null, "tie_word_embeddings": false, "attention_bias": false,
    "bos_token_id": 1, "eos_token_id": 0 })";
  files["generation_config.json"] =
      R"({"temperature": 0.6, "top_p": 0.9, "top_k": 40, "eos_token_id": [0, 1]})";
  files["tokenizer.json"] = R"({
    "version": "1.0",
    "added_tokens": [
      {"id": 0, "content": "<|end|>", "single_word": false, "lstrip": false, "rstrip": false,
       "normalized": false, "special": true},
      {"id": 1, "content": "<|user|>", "single_word": false, "lstrip": true, "rstrip": true,
       "normalized": false, "special": true},
      {"id": 11, "content": "<think>", "single_word": true, "lstrip": false, "rstrip": false,
       "normalized": true, "special": false}],
    "normalizer": null,
    "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
      {"type": "Digits", "individual_digits": true},
      {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true}]},
    "post_processor": null,
    "decoder": {"type": "ByteLevel"},
    "model": {"type": "BPE", "ignore_merges": true,
      "vocab": {"<|end|>": 0, "<|user|>": 1, "a": 2, "b": 3, "c": 4, "ab": 5, "Ġ": 6, "Ġa": 7,
                "d": 8, "e": 9, "de": 10},
      "merges": ["a b", "Ġ a", "d e"]} })";
  files["tokenizer_config.json"] = R"({
    "bos_token": "<|user|>", "eos_token": {"content": "<|end|>", "special": true},
    "pad_token": null, "add_prefix_space": false, "chat_template": "{{ messages }}" })";
  return files;
}

}  // namespace flexllm::formats::testing
