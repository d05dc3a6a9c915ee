#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "formats/checkpoint.h"
#include "formats/tests/expect_error.h"
#include "formats/tests/tiny_model.h"

namespace flexllm::formats::testing {
namespace {

using Json = nlohmann::json;

class HuggingFaceTest : public ::testing::Test {
 protected:
  std::unique_ptr<Checkpoint> open(const Files& files) {
    folder_ = std::make_unique<TemporaryFolder>();
    for (const auto& [name, content] : files) folder_->write(name, content);
    return open_checkpoint(folder_->path());
  }

  std::unique_ptr<TemporaryFolder> folder_;
};

// The folder with keys of one of its JSON files replaced; a null removes the key.
Files with(const std::string& file, const Json& changes, Files files = tiny_folder()) {
  Json json = Json::parse(files.at(file));
  for (const auto& [key, value] : changes.items()) {
    if (value.is_null()) {
      json.erase(key);
    } else {
      json[key] = value;
    }
  }
  files[file] = json.dump();
  return files;
}

Files with_tensors(const std::function<void(std::vector<RawTensor>&)>& change) {
  std::vector<RawTensor> tensors = tiny_tensors("F32");
  change(tensors);
  Files files = tiny_folder();
  files["model.safetensors"] = raw_safetensors(tensors);
  return files;
}

void remove_tensor(std::vector<RawTensor>& tensors, const std::string& name) {
  std::erase_if(tensors, [&](const RawTensor& tensor) { return tensor.name == name; });
}

TEST_F(HuggingFaceTest, IsTheSameModelAsItsGguf) {
  const TemporaryFolder other;
  const auto gguf = open_checkpoint(other.write("tiny.gguf", tiny_gguf(1).build()));
  for (const std::string type : {"BF16", "F16", "F32"}) {
    const auto checkpoint = open(tiny_folder(type));
    const ModelConfig& a = checkpoint->config();
    const ModelConfig& b = gguf->config();
    EXPECT_EQ(a.name, folder_->path().filename().string());
    EXPECT_EQ(std::tie(a.layers, a.hidden, a.ffn, a.heads, a.kv_heads, a.head_dim, a.vocab),
              std::tie(b.layers, b.hidden, b.ffn, b.heads, b.kv_heads, b.head_dim, b.vocab));
    EXPECT_EQ(std::tie(a.context_length, a.rms_eps, a.tied_embeddings, a.rope.theta),
              std::tie(b.context_length, b.rms_eps, b.tied_embeddings, b.rope.theta));
    ASSERT_EQ(checkpoint->tensors().size(), gguf->tensors().size());
    for (size_t i = 0; i < gguf->tensors().size(); ++i) {
      const std::string& name = gguf->tensors()[i].name;
      ASSERT_EQ(checkpoint->tensors()[i].name, name);
      ASSERT_EQ(checkpoint->read_f32(name), gguf->read_f32(name)) << name;
    }
  }
}

TEST_F(HuggingFaceTest, ReadsShards) {
  std::vector<RawTensor> tensors = tiny_tensors("BF16");
  const std::vector<RawTensor> second(tensors.begin() + 9, tensors.end());
  tensors.resize(9);
  Json map = Json::object();
  for (const RawTensor& t : tensors) map[t.name] = "model-00001-of-00002.safetensors";
  for (const RawTensor& t : second) map[t.name] = "model-00002-of-00002.safetensors";
  Files files = tiny_folder();
  files.erase("model.safetensors");
  files["model-00001-of-00002.safetensors"] = raw_safetensors(tensors);
  files["model-00002-of-00002.safetensors"] = raw_safetensors(second);
  const auto index = [&] { return Json{{"metadata", Json::object()}, {"weight_map", map}}.dump(); };
  files["model.safetensors.index.json"] = index();
  const auto checkpoint = open(files);
  for (const TensorInfo& info : checkpoint->tensors()) {
    const auto values = checkpoint->read_f32(info.name);
    ASSERT_EQ(values, tiny_values(info.name, values.size())) << info.name;
  }

  map["model.norm.weight"] = "model-00001-of-00002.safetensors";
  files["model.safetensors.index.json"] = index();
  expect_error([&] { open(files); }, {"index.json", "model.norm.weight", "no such tensor"});
  for (const std::string shard : {"../model.safetensors", "/etc/passwd", "", ".hidden"}) {
    map["model.norm.weight"] = shard;
    files["model.safetensors.index.json"] = index();
    expect_error([&] { open(files); }, {"index.json", "model.norm.weight", "same folder"});
  }
}

TEST_F(HuggingFaceTest, ReadsTheConfiguration) {
  const auto config = [&](const Json& changes) {
    return open(with("config.json", changes))->config();
  };
  EXPECT_EQ(config({{"head_dim", 8}}).head_dim, 8u);
  expect_error([&] { config({{"head_dim", 16}}); }, {"q_proj.weight", "[64, 32]"});
  EXPECT_EQ(config({{"rope_theta", nullptr}}).rope.theta, 10000.0);
  EXPECT_EQ(config({{"rms_norm_eps", nullptr}}).rms_eps, 1e-6f);
  EXPECT_EQ(config({{"architectures", nullptr}}).layers, kLayers) << "model_type will do";

  const Json llama3 = {{"rope_type", "llama3"},
                       {"factor", 32.0},
                       {"low_freq_factor", 1.0},
                       {"high_freq_factor", 4.0},
                       {"original_max_position_embeddings", 64}};
  const RopeConfig rope = config({{"rope_scaling", llama3}}).rope;
  EXPECT_EQ(rope.scaling, RopeConfig::Scaling::llama3);
  EXPECT_EQ(rope.factor, 32.0);
  EXPECT_EQ(rope.original_context_length, 64u);
  const RopeConfig linear = config({{"rope_scaling", {{"type", "linear"}, {"factor", 2}}}}).rope;
  EXPECT_EQ(linear.scaling, RopeConfig::Scaling::linear);
  EXPECT_EQ(linear.factor, 2.0);
  Json parameters = llama3;
  parameters["rope_theta"] = 500000.0;
  const RopeConfig newer =
      config({{"rope_theta", nullptr}, {"rope_scaling", nullptr}, {"rope_parameters", parameters}})
          .rope;
  EXPECT_EQ(newer.scaling, RopeConfig::Scaling::llama3);
  EXPECT_EQ(newer.theta, 500000.0);
}

TEST_F(HuggingFaceTest, EndsTheContextWithTheSlidingWindow) {
  const auto context = [&](const Json& changes) {
    return open(with("config.json", changes))->config().context_length;
  };
  const Json mistral = {"MistralForCausalLM"};
  EXPECT_EQ(context({{"architectures", mistral}, {"sliding_window", 64}}), 64u);
  EXPECT_EQ(context({{"architectures", mistral}, {"max_position_embeddings", 32768}}), 4096u);
  Files no_window = with("config.json", {{"architectures", mistral}});
  no_window["config.json"].insert(1, "\"sliding_window\": null,");
  EXPECT_EQ(open(no_window)->config().context_length, 256u);
  EXPECT_EQ(context({{"sliding_window", 64}, {"use_sliding_window", false}}), 256u);
  EXPECT_EQ(context({{"sliding_window", 64}, {"use_sliding_window", true}}), 64u);
}

TEST_F(HuggingFaceTest, ReadsBiasesAndNormsOfQwen) {
  const auto add = [](std::vector<RawTensor>& tensors, const std::string& suffix, uint64_t size) {
    for (uint64_t i = 0; i < kLayers; ++i) {
      const std::string name = "model.layers." + std::to_string(i) + ".self_attn." + suffix;
      tensors.push_back({name, "F32", {size}, encode(tiny_values(name, size), 0)});
    }
  };
  Files files = with_tensors([&](auto& tensors) {
    add(tensors, "q_proj.bias", kHeads * kHeadDim);
    add(tensors, "k_proj.bias", kKvHeads * kHeadDim);
    add(tensors, "v_proj.bias", kKvHeads * kHeadDim);
  });
  expect_error([&] { open(files); }, {"bias", "none such"});
  const auto qwen2 = open(with("config.json", {{"architectures", {"Qwen2ForCausalLM"}}}, files));
  EXPECT_TRUE(qwen2->config().attention_bias);
  const std::string bias = "model.layers.1.self_attn.q_proj.bias";
  EXPECT_EQ(qwen2->read_f32(bias), tiny_values(bias, kHeads * kHeadDim));
  expect_error(
      [&] {
        open(with("config.json", {{"architectures", {"Qwen2ForCausalLM"}}}));
      },
      {"q_proj.bias", "missing"});

  files = with_tensors([&](auto& tensors) {
    add(tensors, "q_norm.weight", kHeadDim);
    add(tensors, "k_norm.weight", kHeadDim);
  });
  EXPECT_TRUE(open(with("config.json", {{"architectures", {"Qwen3ForCausalLM"}}}, files))
                  ->config()
                  .qk_norm);
}

TEST_F(HuggingFaceTest, FindsOutWhetherTheHeadIsTied) {
  const Files without = with_tensors([](auto& t) { remove_tensor(t, "lm_head.weight"); });
  const auto tied = [&](const Files& files, const Json& value) {
    return open(with("config.json", {{"tie_word_embeddings", value}}, files))
        ->config()
        .tied_embeddings;
  };
  EXPECT_FALSE(tied(tiny_folder(), nullptr));
  EXPECT_FALSE(tied(tiny_folder(), false));
  EXPECT_TRUE(tied(tiny_folder(), true)) << "the head that is stored repeats the embedding";
  EXPECT_TRUE(tied(without, nullptr));
  EXPECT_TRUE(tied(without, true));
  expect_error([&] { tied(without, false); }, {"lm_head.weight", "missing"});
}

TEST_F(HuggingFaceTest, ReadsGenerationDefaults) {
  const GenerationDefaults defaults = open(tiny_folder())->generation_defaults();
  EXPECT_EQ(defaults.temperature, 0.6f);
  EXPECT_EQ(defaults.top_p, 0.9f);
  EXPECT_EQ(defaults.top_k, 40u);
  EXPECT_EQ(defaults.repetition_penalty, std::nullopt);
  EXPECT_THAT(defaults.eos_token_ids, ::testing::ElementsAre(0, 1));
  Files files = with("generation_config.json", {{"eos_token_id", 1}});
  EXPECT_THAT(open(files)->generation_defaults().eos_token_ids, ::testing::ElementsAre(1));
  files.erase("generation_config.json");
  EXPECT_THAT(open(files)->generation_defaults().eos_token_ids, ::testing::ElementsAre(0))
      << "config.json says it too";
  EXPECT_EQ(open(files)->generation_defaults().temperature, std::nullopt);
  expect_error(
      [&] {
        open(with("generation_config.json", {{"eos_token_id", {0, 12}}}));
      },
      {"generation_config.json", "eos_token_id", "below 12"});
  expect_error([&] { open(with("generation_config.json", {{"top_p", "high"}})); }, {"top_p"});
}

TEST_F(HuggingFaceTest, ReadsByteLevelBpe) {
  const auto checkpoint = open(tiny_folder());
  const TokenizerSource& source = checkpoint->tokenizer();
  EXPECT_EQ(source.kind, TokenizerSource::Kind::bpe);
  EXPECT_TRUE(source.byte_level);
  EXPECT_TRUE(source.ignore_merges);
  EXPECT_EQ(source.tokenizer_json, tiny_folder().at("tokenizer.json"));
  ASSERT_EQ(source.tokens.size(), kVocab);
  EXPECT_EQ(source.tokens[7], "Ġa");
  EXPECT_EQ(source.types[7], TokenType::normal);
  EXPECT_EQ(source.types[0], TokenType::control);
  EXPECT_EQ(source.types[11], TokenType::user_defined);
  EXPECT_THAT(source.merges, ::testing::ElementsAre("a b", "Ġ a", "d e"));
  ASSERT_EQ(source.added_tokens.size(), 3u);
  EXPECT_TRUE(source.added_tokens[1].lstrip && source.added_tokens[1].rstrip);
  EXPECT_TRUE(source.added_tokens[1].special);
  EXPECT_TRUE(source.added_tokens[2].normalized && source.added_tokens[2].single_word);
  EXPECT_EQ(source.bos_id, 1u);
  EXPECT_EQ(source.eos_id, 0u);
  EXPECT_EQ(source.pad_id, std::nullopt);
  EXPECT_EQ(source.add_bos, false);
  EXPECT_EQ(source.add_space_prefix, false);
  ASSERT_EQ(source.chat_templates.size(), 1u);
  EXPECT_EQ(source.chat_templates[0].text, "{{ messages }}");
}

TEST_F(HuggingFaceTest, ReadsMergesAsPairsAndGapsAsUnused) {
  Files files = tiny_folder();
  Json json = Json::parse(files["tokenizer.json"]);
  json["model"]["merges"] = Json::array({{"a", "b"}, {"Ġ", "a"}});
  json["model"]["vocab"].erase("c");
  files["tokenizer.json"] = json.dump();
  const auto checkpoint = open(files);
  EXPECT_THAT(checkpoint->tokenizer().merges, ::testing::ElementsAre("a b", "Ġ a"));
  EXPECT_EQ(checkpoint->tokenizer().types[4], TokenType::unused);
  EXPECT_EQ(checkpoint->tokenizer().tokens[4], "");
}

TEST_F(HuggingFaceTest, LearnsFromThePostProcessorWhatSurroundsAText) {
  const Json bos = {{"SpecialToken", {{"id", "<|user|>"}, {"type_id", 0}}}};
  const Json eos = {{"SpecialToken", {{"id", "<|end|>"}, {"type_id", 0}}}};
  const Json text = {{"Sequence", {{"id", "A"}, {"type_id", 0}}}};
  const auto with_template = [&](const Json& single) {
    const Json step = {{"type", "TemplateProcessing"}, {"single", single}};
    const Json sequence = {{"type", "Sequence"}, {"processors", {{{"type", "ByteLevel"}}, step}}};
    return with("tokenizer.json", {{"post_processor", sequence}});
  };
  const auto first = open(with_template({bos, text}));
  EXPECT_EQ(first->tokenizer().add_bos, true);
  EXPECT_EQ(first->tokenizer().add_eos, false);
  const auto both = open(with_template({bos, text, eos}));
  EXPECT_EQ(both->tokenizer().add_eos, true);
  const auto stated =
      open(with("tokenizer_config.json", {{"add_bos_token", false}}, with_template({bos, text})));
  EXPECT_EQ(stated->tokenizer().add_bos, false) << "tokenizer_config.json decides";
}

TEST_F(HuggingFaceTest, PrefersTheOriginalSentencePieceModel) {
  Files files = tiny_folder();
  files["tokenizer.model"] = std::string("\x0a\x00model", 7);
  EXPECT_EQ(open(files)->tokenizer().kind, TokenizerSource::Kind::bpe) << "byte-level BPE stays";
  Json json = Json::parse(files["tokenizer.json"]);
  json["pre_tokenizer"] = nullptr;
  json["decoder"] = {{"type", "Sequence"}, {"decoders", {{{"type", "ByteFallback"}}}}};
  json["model"]["byte_fallback"] = true;
  files["tokenizer.json"] = json.dump();
  {
    const auto checkpoint = open(files);
    const TokenizerSource& source = checkpoint->tokenizer();
    EXPECT_EQ(source.kind, TokenizerSource::Kind::sentencepiece);
    EXPECT_EQ(source.sentencepiece_model, files["tokenizer.model"]);
    EXPECT_TRUE(source.tokens.empty());
    EXPECT_EQ(source.added_tokens.size(), 3u);
    EXPECT_EQ(source.bos_id, 1u);
  }
  Files alone = files;
  alone.erase("tokenizer.json");
  alone["tokenizer_config.json"] = R"({"add_bos_token": true, "bos_token": "<s>",
      "added_tokens_decoder": {"11": {"content": "<think>", "special": false},
                               "3": {"content": "<s>", "special": true}}})";
  {
    const auto checkpoint = open(alone);
    const TokenizerSource& source = checkpoint->tokenizer();
    EXPECT_EQ(source.kind, TokenizerSource::Kind::sentencepiece);
    EXPECT_EQ(source.bos_id, 3u);
    EXPECT_EQ(source.eos_id, 0u) << "from config.json";
    EXPECT_EQ(source.add_bos, true);
    EXPECT_EQ(source.add_eos, std::nullopt);
    ASSERT_EQ(source.added_tokens.size(), 2u);
    EXPECT_EQ(source.added_tokens[1].id, 11u);
  }
  files.erase("tokenizer.model");
  EXPECT_EQ(open(files)->tokenizer().kind, TokenizerSource::Kind::bpe);
  EXPECT_FALSE(open(files)->tokenizer().byte_level);
  EXPECT_TRUE(open(files)->tokenizer().byte_fallback);
  files.erase("tokenizer.json");
  expect_error([&] { open(files); }, {"tokenizer.json or tokenizer.model"});
}

TEST_F(HuggingFaceTest, ReadsChatTemplates) {
  Files files = with(
      "tokenizer_config.json",
      {{"chat_template",
        {{{"name", "tool_use"}, {"template", "T"}}, {{"name", "default"}, {"template", "D"}}}}});
  {
    const auto checkpoint = open(files);
    const auto& templates = checkpoint->tokenizer().chat_templates;
    ASSERT_EQ(templates.size(), 2u);
    EXPECT_EQ(templates[0].text, "D");
    EXPECT_EQ(templates[1].name, "tool_use");
  }
  files["chat_template.jinja"] = "J";
  {
    const auto checkpoint = open(files);
    const auto& templates = checkpoint->tokenizer().chat_templates;
    ASSERT_EQ(templates.size(), 2u);
    EXPECT_EQ(templates[0].text, "J");
  }
  files.erase("tokenizer_config.json");
  EXPECT_EQ(open(files)->tokenizer().chat_templates.size(), 1u);
}

TEST_F(HuggingFaceTest, SaysWhatItDoesNotSupportOrMisses) {
  const struct {
    Json changes;  // of config.json
    std::vector<std::string> message;
  } cases[] = {
      {{{"architectures", {"MixtralForCausalLM"}}}, {"config.json", "Mixtral", "LlamaForCausalLM"}},
      {{{"architectures", {7}}}, {"architectures"}},
      {{{"hidden_act", "gelu"}}, {"hidden_act", "gelu"}},
      {{{"quantization_config", {{"bits", 4}}}}, {"quantization_config"}},
      {{{"mlp_bias", true}}, {"mlp_bias"}},
      {{{"attention_bias", true}}, {"q_proj.bias", "missing"}},
      {{{"partial_rotary_factor", 0.5}}, {"partial_rotary_factor"}},
      {{{"rope_scaling", {{"rope_type", "yarn"}}}}, {"rope_scaling.rope_type", "yarn"}},
      {{{"rope_scaling", {{"rope_type", "linear"}}}}, {"rope_scaling.factor", "missing"}},
      {{{"rope_scaling", "linear"}}, {"rope_scaling", "object"}},
      {{{"hidden_size", nullptr}}, {"hidden_size", "missing"}},
      {{{"hidden_size", 33}}, {"num_attention_heads", "divisor"}},
      {{{"hidden_size", -32}}, {"hidden_size", "integer"}},
      {{{"hidden_size", "32"}}, {"hidden_size", "integer"}},
      {{{"hidden_size", 4294967296}}, {"hidden_size", "2^32"}},
      {{{"vocab_size", 4294967295}}, {"vocab_size", "embed_tokens"}},
      {{{"num_hidden_layers", 4294967295}}, {"model.layers.2", "missing"}},
      {{{"num_hidden_layers", 1}}, {"model.layers.1", "none such"}},
      {{{"num_attention_heads", 0}}, {"num_attention_heads"}},
      {{{"num_key_value_heads", 0}}, {"key-value heads"}},
      {{{"intermediate_size", 63}}, {"mlp", "[63, 32]", "[64, 32]"}},
      {{{"rms_norm_eps", 0}}, {"epsilon"}},
      {{{"eos_token_id", 99}}, {"eos_token_id", "below 12"}},
  };
  for (const auto& [changes, message] : cases) {
    Files files = with("config.json", changes);
    files.erase("generation_config.json");
    expect_error([&, &f = files] { open(f); }, message);
  }
  Files files = tiny_folder();
  files.erase("model.safetensors");
  expect_error([&] { open(files); }, {"model.safetensors", "pytorch_model.bin"});
  files = tiny_folder();
  files["config.json"] = "{\"a\": 1,";
  expect_error([&] { open(files); }, {"config.json", "JSON", "column"});
  files["config.json"] = "[]";
  expect_error([&] { open(files); }, {"config.json", "object"});
  files["config.json"] = R"({"hidden_size": 1, "hidden_size": 2})";
  expect_error([&] { open(files); }, {"config.json", "hidden_size", "twice"});
  files["config.json"] = std::string(100000, '[');
  expect_error([&] { open(files); }, {"config.json", "byte 32", "deeper"});
  files["config.json"] = std::string("\"") + std::string(2 << 20, 'x') + "\"";
  expect_error([&] { open(files); }, {"config.json", "at most 1048576"});
  expect_error(
      [&] {
        open(with("tokenizer.json", {{"model", {{"type", "Unigram"}}}}));
      },
      {"tokenizer.json", "model.type", "Unigram"});
  expect_error([&] { open(with_tensors([](auto& t) { remove_tensor(t, "model.norm.weight"); })); },
               {"model.norm.weight", "missing"});
  expect_error([&] { open(with_tensors([](auto& t) { t.back().type = "I32"; })); },
               {"lm_head.weight", "I32"});
}

TEST_F(HuggingFaceTest, RefusesIdsBeyondTheVocabulary) {
  const auto changed = [](const std::function<void(Json&)>& change) {
    Files files = tiny_folder();
    Json json = Json::parse(files["tokenizer.json"]);
    change(json);
    files["tokenizer.json"] = json.dump();
    return files;
  };
  for (const Json& id : {Json(12), Json(4294967295), Json(-1), Json("3"), Json(1e300)}) {
    expect_error([&] { open(changed([&](Json& j) { j["model"]["vocab"]["x"] = id; })); },
                 {"tokenizer.json", "model.vocab.x", "below 12"});
    expect_error([&] { open(changed([&](Json& j) { j["added_tokens"][0]["id"] = id; })); },
                 {"tokenizer.json", "added_tokens.0.id", "below 12"});
  }
  expect_error([&] { open(changed([](Json& j) { j["model"]["vocab"]["x"] = 5; })); },
               {"token 5 is already"});
  expect_error([&] { open(changed([](Json& j) {
                       j["model"]["merges"][0] = {"a b", "c"};
                     })); },
               {"model.merges", "entry 0"});
  expect_error([&] { open(changed([](Json& j) { j["model"].erase("merges"); })); },
               {"model.merges", "missing"});
}

}  // namespace
}  // namespace flexllm::formats::testing
