#include "formats/packed_info.h"

#include <nlohmann/json.hpp>

#include "formats/error.h"
#include "formats/json_text.h"
#include "formats/stored_checkpoint.h"

namespace flexllm::formats {
namespace {

constexpr uint64_t kMaxMetadataBytes = 1u << 20;

// The metadata of a file, with what messages need.
class Metadata {
 public:
  Metadata(const std::filesystem::path& file, const std::map<std::string, std::string>& values)
      : file_(file), values_(values) {}

  const std::string& get(const std::string& key) const {
    const auto found = values_.find(key);
    if (found == values_.end()) throw Error(file_, "metadata", "has no \"" + key + "\"");
    return found->second;
  }

  // Empty when there is none.
  std::string find(const std::string& key) const {
    const auto found = values_.find(key);
    return found == values_.end() ? "" : found->second;
  }

  Json json(const std::string& key) const {
    return parse_json(file_, "metadata \"" + key + "\"", get(key), kMaxMetadataBytes);
  }

 private:
  const std::filesystem::path& file_;
  const std::map<std::string, std::string>& values_;
};

const char* name_of(RopeConfig::Scaling scaling) {
  switch (scaling) {
    case RopeConfig::Scaling::linear:
      return "linear";
    case RopeConfig::Scaling::llama3:
      return "llama3";
    case RopeConfig::Scaling::none:
      break;
  }
  return "none";
}

RopeConfig::Scaling scaling_of(const JsonObject& rope) {
  const std::string name = rope.string("scaling");
  for (const auto scaling :
       {RopeConfig::Scaling::none, RopeConfig::Scaling::linear, RopeConfig::Scaling::llama3}) {
    if (name == name_of(scaling)) return scaling;
  }
  rope.fail("scaling", "is not none, linear or llama3");
}

Json config_to_json(const ModelConfig& c) {
  return {{"name", c.name},
          {"layers", c.layers},
          {"hidden", c.hidden},
          {"ffn", c.ffn},
          {"heads", c.heads},
          {"kv_heads", c.kv_heads},
          {"head_dim", c.head_dim},
          {"vocab", c.vocab},
          {"context_length", c.context_length},
          {"rms_eps", c.rms_eps},
          {"tied_embeddings", c.tied_embeddings},
          {"attention_bias", c.attention_bias},
          {"qk_norm", c.qk_norm},
          {"rope",
           {{"theta", c.rope.theta},
            {"scaling", name_of(c.rope.scaling)},
            {"factor", c.rope.factor},
            {"low_freq_factor", c.rope.low_freq_factor},
            {"high_freq_factor", c.rope.high_freq_factor},
            {"original_context_length", c.rope.original_context_length},
            {"frequency_factors", c.rope.frequency_factors}}}};
}

std::vector<float> floats_of(const JsonObject& object, std::string_view key) {
  std::vector<float> values;
  const Json* array = object.find_array(key);
  if (array == nullptr) return values;
  for (const Json& item : *array) {
    if (!item.is_number()) object.fail(key, "is not a list of numbers");
    values.push_back(item.get<float>());
  }
  return values;
}

std::vector<uint32_t> ids_of(const JsonObject& object, std::string_view key) {
  std::vector<uint32_t> ids;
  const Json* array = object.find_array(key);
  if (array == nullptr) return ids;
  for (const Json& item : *array) {
    const auto id = as_u32(item);
    if (!id) object.fail(key, "is not a list of token ids");
    ids.push_back(*id);
  }
  return ids;
}

ModelConfig config_from_json(const std::filesystem::path& file, const Json& json) {
  const JsonObject object(file, "config", json);
  ModelConfig c;
  c.name = object.string("name");
  c.layers = object.u32("layers");
  c.hidden = object.u32("hidden");
  c.ffn = object.u32("ffn");
  c.heads = object.u32("heads");
  c.kv_heads = object.u32("kv_heads");
  c.head_dim = object.u32("head_dim");
  c.vocab = object.u32("vocab");
  c.context_length = object.u32("context_length");
  c.rms_eps = static_cast<float>(object.number("rms_eps"));
  c.tied_embeddings = object.find_bool("tied_embeddings").value_or(false);
  c.attention_bias = object.find_bool("attention_bias").value_or(false);
  c.qk_norm = object.find_bool("qk_norm").value_or(false);
  const JsonObject rope = object.object("rope");
  c.rope.theta = rope.number("theta");
  c.rope.scaling = scaling_of(rope);
  c.rope.factor = rope.find_number("factor").value_or(c.rope.factor);
  c.rope.low_freq_factor = rope.find_number("low_freq_factor").value_or(c.rope.low_freq_factor);
  c.rope.high_freq_factor = rope.find_number("high_freq_factor").value_or(c.rope.high_freq_factor);
  c.rope.original_context_length =
      rope.find_u32("original_context_length").value_or(c.rope.original_context_length);
  c.rope.frequency_factors = floats_of(rope, "frequency_factors");
  check_config(file, c);
  return c;
}

Json generation_to_json(const GenerationDefaults& g) {
  Json json = {{"eos_token_ids", g.eos_token_ids}};
  if (g.temperature) json["temperature"] = *g.temperature;
  if (g.top_p) json["top_p"] = *g.top_p;
  if (g.top_k) json["top_k"] = *g.top_k;
  if (g.repetition_penalty) json["repetition_penalty"] = *g.repetition_penalty;
  return json;
}

GenerationDefaults generation_from_json(const std::filesystem::path& file, const Json& json) {
  const JsonObject object(file, "generation", json);
  const auto number = [&](std::string_view key) -> std::optional<float> {
    const auto value = object.find_number(key);
    if (!value) return std::nullopt;
    return static_cast<float>(*value);
  };
  GenerationDefaults g;
  g.temperature = number("temperature");
  g.top_p = number("top_p");
  g.top_k = object.find_u32("top_k");
  g.repetition_penalty = number("repetition_penalty");
  g.eos_token_ids = ids_of(object, "eos_token_ids");
  return g;
}

Json added_to_json(const AddedToken& t) {
  return {{"id", t.id},
          {"text", t.text},
          {"special", t.special},
          {"normalized", t.normalized},
          {"lstrip", t.lstrip},
          {"rstrip", t.rstrip},
          {"single_word", t.single_word}};
}

AddedToken added_from_json(const std::filesystem::path& file, const Json& json) {
  const JsonObject object(file, "added_tokens", json);
  AddedToken t;
  t.id = object.u32("id");
  t.text = object.string("text");
  t.special = object.find_bool("special").value_or(false);
  t.normalized = object.find_bool("normalized").value_or(false);
  t.lstrip = object.find_bool("lstrip").value_or(false);
  t.rstrip = object.find_bool("rstrip").value_or(false);
  t.single_word = object.find_bool("single_word").value_or(false);
  return t;
}

std::vector<std::string> texts_of(const JsonObject& object, std::string_view key) {
  std::vector<std::string> texts;
  const Json* array = object.find_array(key);
  if (array == nullptr) return texts;
  texts.reserve(array->size());
  for (const Json& item : *array) {
    if (!item.is_string()) object.fail(key, "is not a list of texts");
    texts.push_back(item.get<std::string>());
  }
  return texts;
}

// JSON text; a name that is not UTF-8 loses its ill-formed bytes to U+FFFD.
std::string dump(const Json& json) {
  return json.dump(-1, ' ', false, Json::error_handler_t::replace);
}

// Walks through CBOR and stops at nesting that no tokenizer has, before it is on the stack.
class DepthCheck : public nlohmann::json_sax<Json> {
 public:
  bool null() override { return true; }
  bool boolean(bool) override { return true; }
  bool number_integer(number_integer_t) override { return true; }
  bool number_unsigned(number_unsigned_t) override { return true; }
  bool number_float(number_float_t, const string_t&) override { return true; }
  bool string(string_t&) override { return true; }
  bool binary(binary_t&) override { return true; }
  bool key(string_t&) override { return true; }
  bool start_object(std::size_t) override { return ++depth_ <= kMaxJsonDepth; }
  bool start_array(std::size_t) override { return ++depth_ <= kMaxJsonDepth; }
  bool end_object() override { return --depth_ >= 0; }
  bool end_array() override { return --depth_ >= 0; }
  bool parse_error(std::size_t, const std::string&, const nlohmann::detail::exception&) override {
    return false;
  }

 private:
  int depth_ = 0;
};

}  // namespace

std::map<std::string, std::string> info_to_metadata(const PackedModelInfo& info) {
  std::map<std::string, std::string> metadata = {
      {"format", "flexllm-packed"},
      {"contract_version", std::to_string(kPackedContractVersion)},
      {"config", dump(config_to_json(info.config))},
      {"generation", dump(generation_to_json(info.generation))},
      {"scheme", info.scheme},
      {"source", info.source},
      {"source_sha256", info.source_sha256}};
  if (!info.rotations_sha256.empty()) metadata["rotations_sha256"] = info.rotations_sha256;
  if (!info.rounding.empty()) metadata["rounding"] = info.rounding;
  return metadata;
}

PackedModelInfo info_from_metadata(const std::filesystem::path& file,
                                   const std::map<std::string, std::string>& metadata) {
  const Metadata meta(file, metadata);
  if (meta.get("format") != "flexllm-packed") {
    throw Error(file, "metadata \"format\"", "is not flexllm-packed");
  }
  const std::string wanted = std::to_string(kPackedContractVersion);
  if (meta.get("contract_version") != wanted) {
    throw Error(file, "metadata \"contract_version\"",
                "is " + meta.get("contract_version") + ", this program reads version " + wanted +
                    ": pack the model again");
  }
  PackedModelInfo info;
  info.config = config_from_json(file, meta.json("config"));
  info.generation = generation_from_json(file, meta.json("generation"));
  info.scheme = meta.get("scheme");
  info.source = meta.get("source");
  info.source_sha256 = meta.get("source_sha256");
  info.rotations_sha256 = meta.find("rotations_sha256");
  info.rounding = meta.find("rounding");
  return info;
}

std::vector<std::byte> tokenizer_to_bytes(const TokenizerSource& t) {
  Json json = {{"kind", t.kind == TokenizerSource::Kind::bpe ? "bpe" : "sentencepiece"},
               {"tokens", t.tokens},
               {"scores", t.scores},
               {"merges", t.merges},
               {"byte_level", t.byte_level},
               {"byte_fallback", t.byte_fallback},
               {"ignore_merges", t.ignore_merges},
               {"pre_tokenizer", t.pre_tokenizer},
               {"tokenizer_json", t.tokenizer_json},
               {"sentencepiece_model", t.sentencepiece_model},
               {"added_tokens", Json::array()},
               {"types", Json::array()},
               {"chat_templates", Json::array()}};
  for (const TokenType type : t.types) json["types"].push_back(static_cast<uint32_t>(type));
  for (const AddedToken& token : t.added_tokens)
    json["added_tokens"].push_back(added_to_json(token));
  for (const NamedTemplate& named : t.chat_templates) {
    json["chat_templates"].push_back({{"name", named.name}, {"text", named.text}});
  }
  const auto put = [&json](const char* key, const auto& value) {
    if (value) json[key] = *value;
  };
  put("bos_id", t.bos_id);
  put("eos_id", t.eos_id);
  put("unk_id", t.unk_id);
  put("pad_id", t.pad_id);
  put("add_bos", t.add_bos);
  put("add_eos", t.add_eos);
  put("add_space_prefix", t.add_space_prefix);
  const std::vector<uint8_t> cbor = Json::to_cbor(json);
  const auto* begin = reinterpret_cast<const std::byte*>(cbor.data());
  return {begin, begin + cbor.size()};
}

TokenizerSource tokenizer_from_bytes(const std::filesystem::path& file,
                                     std::span<const std::byte> bytes) {
  const auto* begin = reinterpret_cast<const uint8_t*>(bytes.data());
  DepthCheck check;
  if (!Json::sax_parse(begin, begin + bytes.size(), &check, Json::input_format_t::cbor)) {
    throw Error(file, "tensor \"tokenizer\"", "is not well-formed CBOR");
  }
  const Json json = Json::from_cbor(begin, begin + bytes.size());
  const JsonObject object(file, "tokenizer", json);
  TokenizerSource t;
  const std::string kind = object.string("kind");
  if (kind != "bpe" && kind != "sentencepiece") object.fail("kind", "is not bpe or sentencepiece");
  t.kind = kind == "bpe" ? TokenizerSource::Kind::bpe : TokenizerSource::Kind::sentencepiece;
  t.tokens = texts_of(object, "tokens");
  t.scores = floats_of(object, "scores");
  for (const uint32_t type : ids_of(object, "types")) {
    if (type < 1 || type > 6) object.fail("types", "is not a list of token types 1 to 6");
    t.types.push_back(static_cast<TokenType>(type));
  }
  if ((!t.scores.empty() && t.scores.size() != t.tokens.size()) ||
      (!t.types.empty() && t.types.size() != t.tokens.size())) {
    object.fail("tokens", "has another length than scores or types");
  }
  t.merges = texts_of(object, "merges");
  t.byte_level = object.find_bool("byte_level").value_or(false);
  t.byte_fallback = object.find_bool("byte_fallback").value_or(false);
  t.ignore_merges = object.find_bool("ignore_merges").value_or(false);
  t.pre_tokenizer = object.string("pre_tokenizer");
  t.tokenizer_json = object.string("tokenizer_json");
  t.sentencepiece_model = object.string("sentencepiece_model");
  if (const Json* added = object.find_array("added_tokens")) {
    for (const Json& item : *added) t.added_tokens.push_back(added_from_json(file, item));
  }
  if (const Json* templates = object.find_array("chat_templates")) {
    for (const Json& item : *templates) {
      const JsonObject named(file, "chat_templates", item);
      t.chat_templates.push_back({named.string("name"), named.string("text")});
    }
  }
  t.bos_id = object.find_u32("bos_id");
  t.eos_id = object.find_u32("eos_id");
  t.unk_id = object.find_u32("unk_id");
  t.pad_id = object.find_u32("pad_id");
  t.add_bos = object.find_bool("add_bos");
  t.add_eos = object.find_bool("add_eos");
  t.add_space_prefix = object.find_bool("add_space_prefix");
  return t;
}

}  // namespace flexllm::formats
