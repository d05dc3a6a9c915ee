#include <algorithm>
#include <map>
#include <set>

#include "formats/error.h"
#include "formats/hugging_face_tokenizer.h"
#include "formats/json_text.h"
#include "formats/safetensors.h"
#include "formats/stored_checkpoint.h"

namespace flexllm::formats {
namespace {

namespace fs = std::filesystem;

constexpr uint64_t kMaxConfigBytes = 1 << 20;
constexpr uint64_t kMaxIndexBytes = 16 << 20;
constexpr size_t kMaxShards = 1024;

Json parse_file(const fs::path& path, uint64_t max_bytes) {
  return parse_json(path, "the document", MappedFile(path).text(), max_bytes);
}

enum class Family { llama, mistral, qwen2, qwen3 };

Family read_family(const JsonObject& config) {
  std::string name;
  const Json* architectures = config.find_array("architectures");
  if (architectures != nullptr && !architectures->empty()) {
    if (!architectures->front().is_string()) config.fail("architectures", "expected strings");
    name = architectures->front().get<std::string>();
  } else {
    name = config.string("model_type");
  }
  const std::map<std::string, Family, std::less<>> known = {{"LlamaForCausalLM", Family::llama},
                                                            {"MistralForCausalLM", Family::mistral},
                                                            {"Qwen2ForCausalLM", Family::qwen2},
                                                            {"Qwen3ForCausalLM", Family::qwen3},
                                                            {"llama", Family::llama},
                                                            {"mistral", Family::mistral},
                                                            {"qwen2", Family::qwen2},
                                                            {"qwen3", Family::qwen3}};
  const auto found = known.find(name);
  if (found == known.end()) {
    config.fail("architectures",
                "architecture '" + name +
                    "' is not supported; expected LlamaForCausalLM, MistralForCausalLM, "
                    "Qwen2ForCausalLM or Qwen3ForCausalLM");
  }
  return found->second;
}

// Features that would silently change the result when ignored.
void refuse_unsupported(const JsonObject& config) {
  if (const auto act = config.find_string("hidden_act"); act.value_or("silu") != "silu") {
    config.fail("hidden_act", "expected silu, found " + *act);
  }
  if (config.find("quantization_config") != nullptr) {
    config.fail("quantization_config", "quantised folders are not supported; give the original");
  }
  if (config.find_bool("mlp_bias").value_or(false)) {
    config.fail("mlp_bias", "a bias in the feed-forward part is not supported");
  }
  if (config.find_number("partial_rotary_factor").value_or(1.0) != 1.0) {
    config.fail("partial_rotary_factor", "expected 1");
  }
}

// transformers 5 keeps everything in rope_parameters; before, the base stood in rope_theta and the
// rest in rope_scaling, whose type was first called "type".
RopeConfig read_rope(const JsonObject& config) {
  RopeConfig rope;
  const auto parameters = config.find_object("rope_parameters");
  const JsonObject& base = parameters ? *parameters : config;
  rope.theta = base.find_number("rope_theta").value_or(10000.0);
  const auto scaling = parameters ? parameters : config.find_object("rope_scaling");
  if (!scaling) return rope;
  const std::string type =
      scaling->find_string("rope_type").value_or(scaling->find_string("type").value_or("default"));
  if (type == "linear") {
    rope.scaling = RopeConfig::Scaling::linear;
    rope.factor = scaling->number("factor");
  } else if (type == "llama3") {
    rope.scaling = RopeConfig::Scaling::llama3;
    rope.factor = scaling->number("factor");
    rope.low_freq_factor = scaling->number("low_freq_factor");
    rope.high_freq_factor = scaling->number("high_freq_factor");
    rope.original_context_length = scaling->u32("original_max_position_embeddings");
  } else if (type != "default") {
    scaling->fail("rope_type", "RoPE scaling '" + type +
                                   "' is not supported; expected default, linear or llama3");
  }
  return rope;
}

// Within its window, sliding-window attention is full attention: the context ends there.
uint32_t read_context_length(const JsonObject& config, Family family) {
  const uint32_t positions = config.u32("max_position_embeddings");
  const bool on = config.find_bool("use_sliding_window").value_or(family == Family::mistral);
  auto window = config.find_u32("sliding_window");
  const bool stated = config.json().contains("sliding_window");
  if (family == Family::mistral && !stated) window = 4096;  // the default of its configuration
  return on && window ? std::min(positions, *window) : positions;
}

ModelConfig read_config(const JsonObject& config, const fs::path& folder) {
  const Family family = read_family(config);
  refuse_unsupported(config);
  ModelConfig result;
  const fs::path clean = fs::absolute(folder).lexically_normal();
  result.name = (clean.has_filename() ? clean : clean.parent_path()).filename().string();
  result.layers = config.u32("num_hidden_layers");
  result.hidden = config.u32("hidden_size");
  result.ffn = config.u32("intermediate_size");
  result.heads = config.u32("num_attention_heads");
  result.kv_heads = config.find_u32("num_key_value_heads").value_or(result.heads);
  result.vocab = config.u32("vocab_size");
  result.context_length = read_context_length(config, family);
  result.rms_eps = static_cast<float>(config.find_number("rms_norm_eps").value_or(1e-6));
  if (const auto head_dim = config.find_u32("head_dim")) {
    result.head_dim = *head_dim;
  } else if (result.heads > 0 && result.hidden % result.heads == 0) {
    result.head_dim = result.hidden / result.heads;
  } else {
    config.fail("num_attention_heads", "expected a divisor of hidden_size");
  }
  result.attention_bias =
      family == Family::qwen2 || config.find_bool("attention_bias").value_or(false);
  result.qk_norm = family == Family::qwen3;
  result.rope = read_rope(config);
  return result;
}

GenerationDefaults read_generation(const fs::path& folder, const JsonObject& config,
                                   uint32_t vocab) {
  GenerationDefaults defaults;
  const auto add_eos = [&](const JsonObject& object) {
    const Json* value = object.find("eos_token_id");
    if (value == nullptr) return;
    const Json ids = value->is_array() ? *value : Json::array({*value});
    for (const Json& id : ids) {
      const auto number = as_u32(id);
      if (!number || *number >= vocab) {
        object.fail("eos_token_id", "expected ids below " + std::to_string(vocab));
      }
      defaults.eos_token_ids.push_back(*number);
    }
  };
  const fs::path path = folder / "generation_config.json";
  if (is_file(path)) {
    const Json json = parse_file(path, kMaxConfigBytes);
    const JsonObject object(path, "", json);
    const auto number = [&](std::string_view key) -> std::optional<float> {
      const auto value = object.find_number(key);
      if (!value) return std::nullopt;
      if (*value < 0 || *value > 1e9) object.fail(key, "expected a number from 0 to 1e9");
      return static_cast<float>(*value);
    };
    defaults.temperature = number("temperature");
    defaults.top_p = number("top_p");
    defaults.top_k = object.find_u32("top_k");
    defaults.repetition_penalty = number("repetition_penalty");
    add_eos(object);
  }
  if (defaults.eos_token_ids.empty()) add_eos(config);
  return defaults;
}

// The tensors of all shards by name.
class Shards {
 public:
  explicit Shards(const fs::path& folder) {
    const fs::path index = folder / "model.safetensors.index.json";
    const fs::path single = folder / "model.safetensors";
    if (is_file(index)) {
      read_index(folder, index);
    } else if (is_file(single)) {
      const SafetensorsFile& file = files_.emplace("model.safetensors", single).first->second;
      for (const SafetensorsTensor& tensor : file.tensors()) {
        tensors_.emplace(tensor.name, &tensor);
      }
    } else {
      throw Error(folder, "weights",
                  "expected model.safetensors or model.safetensors.index.json (other formats, such "
                  "as pytorch_model.bin, are not supported)");
    }
  }

  const SafetensorsTensor* find(std::string_view name) const {
    const auto found = tensors_.find(name);
    return found == tensors_.end() ? nullptr : found->second;
  }

  const std::map<std::string, const SafetensorsTensor*, std::less<>>& tensors() const {
    return tensors_;
  }

 private:
  void read_index(const fs::path& folder, const fs::path& path) {
    const Json json = parse_file(path, kMaxIndexBytes);
    const JsonObject map = JsonObject(path, "", json).object("weight_map");
    for (const auto& [name, value] : map.json().items()) {
      const auto shard = map.string(name);
      if (shard.empty() || shard.front() == '.' || shard.find('/') != std::string::npos) {
        map.fail(name, "expected the name of a file in the same folder");
      }
      if (!files_.contains(shard)) {
        if (files_.size() == kMaxShards) map.fail(name, "there are too many shards");
        files_.emplace(shard, folder / shard);
      }
      const SafetensorsTensor* tensor = files_.at(shard).find(name);
      if (tensor == nullptr) map.fail(name, "'" + shard + "' has no such tensor");
      tensors_.emplace(name, tensor);
    }
  }

  std::map<std::string, SafetensorsFile> files_;
  std::map<std::string, const SafetensorsTensor*, std::less<>> tensors_;
};

// The tokenizer makes room for `vocab` tokens, so the embedding must really have as many rows.
void check_vocab(const JsonObject& object, const ModelConfig& config, const Shards& shards) {
  const SafetensorsTensor* embedding = shards.find("model.embed_tokens.weight");
  const std::vector<uint64_t> expected = {config.vocab, config.hidden};
  if (embedding == nullptr || embedding->shape != expected) {
    object.fail("vocab_size", "expected the shape of tensor 'model.embed_tokens.weight' to be [" +
                                  std::to_string(config.vocab) + ", " +
                                  std::to_string(config.hidden) + "]");
  }
}

// Tensors that carry nothing of their own: RoPE frequencies that old checkpoints store, and an
// output head that repeats a tied embedding.
bool is_redundant(std::string_view name, const ModelConfig& config) {
  return name.ends_with(".rotary_emb.inv_freq") ||
         (name == "lm_head.weight" && config.tied_embeddings);
}

}  // namespace

std::unique_ptr<Checkpoint> open_hugging_face_checkpoint(const fs::path& folder) {
  const fs::path config_path = folder / "config.json";
  if (!is_file(config_path)) {
    throw Error(folder, "config.json", "it is missing; expected a Hugging Face model folder");
  }
  const Json config_json = parse_file(config_path, kMaxConfigBytes);
  const JsonObject config(config_path, "", config_json);

  CheckpointParts parts;
  parts.path = folder;
  parts.config = read_config(config, folder);
  const auto shards = std::make_shared<const Shards>(folder);
  parts.files = shards;
  const bool has_head = shards->find("lm_head.weight") != nullptr;
  parts.config.tied_embeddings = config.find_bool("tie_word_embeddings").value_or(!has_head);
  check_config(config_path, parts.config);
  check_vocab(config, parts.config, *shards);
  parts.generation = read_generation(folder, config, parts.config.vocab);
  parts.tokenizer = read_hugging_face_tokenizer(folder, config, parts.config.vocab);
  parts.locate = [&shards](const std::string& name) {
    const SafetensorsTensor* tensor = shards->find(name);
    return tensor == nullptr ? StoredTensor{}
                             : StoredTensor{tensor->shape, tensor->type, tensor->data, 0};
  };
  auto checkpoint = assemble_checkpoint(std::move(parts));
  for (const auto& [name, tensor] : shards->tensors()) {
    if (checkpoint->find(name) == nullptr && !is_redundant(name, checkpoint->config())) {
      throw Error(folder, "tensor '" + name + "'", "a model of this configuration has none such");
    }
  }
  return checkpoint;
}

}  // namespace flexllm::formats
