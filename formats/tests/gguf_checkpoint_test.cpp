#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <string>
#include <vector>

#include "formats/checkpoint.h"
#include "formats/tests/expect_error.h"
#include "formats/tests/tiny_model.h"

namespace flexllm::formats::testing {
namespace {

class GgufCheckpointTest : public ::testing::Test {
 protected:
  std::unique_ptr<Checkpoint> open(const GgufBuilder& builder) {
    return open_checkpoint(folder_.write("tiny.gguf", builder.build()));
  }

  TemporaryFolder folder_;
};

TEST_F(GgufCheckpointTest, ReadsTheConfiguration) {
  const auto checkpoint = open(tiny_gguf());
  const ModelConfig& config = checkpoint->config();
  EXPECT_EQ(config.name, "tiny");
  EXPECT_EQ(config.layers, kLayers);
  EXPECT_EQ(config.hidden, kHidden);
  EXPECT_EQ(config.ffn, kFfn);
  EXPECT_EQ(config.heads, kHeads);
  EXPECT_EQ(config.kv_heads, kKvHeads);
  EXPECT_EQ(config.head_dim, kHeadDim);
  EXPECT_EQ(config.vocab, kVocab);
  EXPECT_EQ(config.context_length, 256u);
  EXPECT_EQ(config.rms_eps, 1e-5f);
  EXPECT_EQ(config.rope.theta, 100000.0);
  EXPECT_EQ(config.rope.scaling, RopeConfig::Scaling::none);
  EXPECT_FALSE(config.tied_embeddings);
  EXPECT_FALSE(config.attention_bias);
  EXPECT_FALSE(config.qk_norm);
  EXPECT_THAT(checkpoint->generation_defaults().eos_token_ids, ::testing::ElementsAre(0));
}

TEST_F(GgufCheckpointTest, GivesCanonicalTensorsForEveryArchitectureAndType) {
  for (const std::string architecture : {"llama", "qwen2", "qwen3"}) {
    for (const uint32_t type : {0u, 1u, 8u, 30u}) {
      SCOPED_TRACE(architecture + ", type " + std::to_string(type));
      const auto checkpoint = open(tiny_gguf(type, architecture));
      EXPECT_EQ(checkpoint->config().attention_bias, architecture == "qwen2");
      EXPECT_EQ(checkpoint->config().qk_norm, architecture == "qwen3");
      for (const TensorInfo& info : checkpoint->tensors()) {
        const auto values = checkpoint->read_f32(info.name);
        ASSERT_EQ(values, tiny_values(info.name, values.size())) << info.name;
      }
    }
  }
}

// Scores q.k of two heads under RoPE, where elements `first[j]` and `second[j]` of a head turn
// together by position * theta^(-2j/d).
double score(const std::vector<double>& q, const std::vector<double>& k, double distance,
             const std::function<size_t(size_t)>& first,
             const std::function<size_t(size_t)>& second) {
  double sum = 0;
  for (size_t j = 0; j < kHeadDim / 2; ++j) {
    const double angle = distance * std::pow(100000.0, -2.0 * static_cast<double>(j) /
                                                           static_cast<double>(kHeadDim));
    const double x = q[first(j)] * std::cos(angle) - q[second(j)] * std::sin(angle);
    const double y = q[first(j)] * std::sin(angle) + q[second(j)] * std::cos(angle);
    sum += x * k[first(j)] + y * k[second(j)];
  }
  return sum;
}

// What the row order means, not how converters happen to write it: attention computed from the
// file's own rows with neighbouring pairs, as llama files are to be run, is attention computed from
// the canonical rows with half-split pairs.
TEST_F(GgufCheckpointTest, UndoesTheInterleavedOrderOfQueriesAndKeys) {
  GgufBuilder builder = tiny_gguf(0);
  const auto checkpoint = open(builder);
  const auto project = [](const std::vector<float>& rows, size_t head) {
    std::vector<double> result(kHeadDim);
    for (size_t i = 0; i < kHeadDim; ++i) {
      for (size_t c = 0; c < kHidden; ++c) {
        result[i] += static_cast<double>(rows[(head * kHeadDim + i) * kHidden + c]) *
                     std::sin(static_cast<double>(c + 1));
      }
    }
    return result;
  };
  const auto stored = [&](const std::string& name) {
    const std::string& data = builder.tensor(name).data;
    std::vector<float> values(data.size() / sizeof(float));
    std::memcpy(values.data(), data.data(), data.size());
    return values;
  };
  const std::string layer = "model.layers.1.self_attn.";
  const auto q = checkpoint->read_f32(layer + "q_proj.weight");
  const auto k = checkpoint->read_f32(layer + "k_proj.weight");
  EXPECT_NE(q, stored("blk.1.attn_q.weight"));
  for (size_t head = 0; head < kHeads; ++head) {
    const size_t kv_head = head / (kHeads / kKvHeads);
    const double half_split = score(
        project(q, head), project(k, kv_head), 5, [](size_t j) { return j; },
        [](size_t j) { return j + kHeadDim / 2; });
    const double interleaved = score(
        project(stored("blk.1.attn_q.weight"), head),
        project(stored("blk.1.attn_k.weight"), kv_head), 5, [](size_t j) { return 2 * j; },
        [](size_t j) { return 2 * j + 1; });
    EXPECT_NEAR(half_split, interleaved, 1e-9) << head;
  }
}

TEST_F(GgufCheckpointTest, UndoesTheOrderOfBiasesToo) {
  GgufBuilder builder = tiny_gguf();
  std::vector<float> bias(kHeads * kHeadDim);
  for (size_t i = 0; i < bias.size(); ++i) bias[i] = static_cast<float>(i);
  for (size_t i = 0; i < kLayers; ++i) {
    const std::string block = "blk." + std::to_string(i) + ".";
    const std::vector<float> kv(bias.begin(), bias.begin() + kKvHeads * kHeadDim);
    builder.tensors.push_back({block + "attn_q.bias", {bias.size()}, 0, bytes_of_all(bias)});
    builder.tensors.push_back({block + "attn_k.bias", {kv.size()}, 0, bytes_of_all(kv)});
    builder.tensors.push_back({block + "attn_v.bias", {kv.size()}, 0, bytes_of_all(kv)});
  }
  const auto checkpoint = open(builder);
  EXPECT_TRUE(checkpoint->config().attention_bias);
  const auto k = checkpoint->read_f32("model.layers.0.self_attn.k_proj.bias");
  EXPECT_THAT(k, ::testing::ElementsAre(0, 2, 4, 6, 1, 3, 5, 7, 8, 10, 12, 14, 9, 11, 13, 15));
  const auto v = checkpoint->read_f32("model.layers.0.self_attn.v_proj.bias");
  EXPECT_EQ(v[1], 1.0f);
}

TEST_F(GgufCheckpointTest, ReadsRangesOfRows) {
  const auto checkpoint = open(tiny_gguf(8));
  for (const std::string name :
       {"model.embed_tokens.weight", "model.layers.0.self_attn.q_proj.weight",
        "model.layers.0.mlp.down_proj.weight", "model.norm.weight"}) {
    const TensorInfo& info = *checkpoint->find(name);
    const auto whole = checkpoint->read_f32(name);
    const size_t width = whole.size() / info.shape.front();
    for (uint64_t first = 0; first <= info.shape.front(); first += 3) {
      const uint64_t rows = std::min<uint64_t>(5, info.shape.front() - first);
      std::vector<float> part(rows * width);
      checkpoint->read_rows_f32(name, first, rows, part);
      ASSERT_TRUE(std::equal(part.begin(), part.end(),
                             whole.begin() + static_cast<ptrdiff_t>(first * width)));
    }
    std::vector<float> one(width);
    expect_error([&] { checkpoint->read_rows_f32(name, info.shape.front(), 1, one); }, {name});
    expect_error([&] { checkpoint->read_rows_f32(name, ~uint64_t{0}, 2, one); }, {name});
    expect_error([&] { checkpoint->read_rows_f32(name, 0, 2, one); }, {name});
  }
  expect_error([&] { checkpoint->read_f32("model.bogus"); }, {"model.bogus"});
  EXPECT_EQ(checkpoint->find("blk.0.attn_q.weight"), nullptr);
}

TEST_F(GgufCheckpointTest, ReadsRopeScaling) {
  GgufBuilder builder = tiny_gguf();
  builder.set_string("llama.rope.scaling.type", "linear");
  builder.set_f32("llama.rope.scaling.factor", 4.0f);
  EXPECT_EQ(open(builder)->config().rope.scaling, RopeConfig::Scaling::linear);
  EXPECT_EQ(open(builder)->config().rope.factor, 4.0);
  builder = tiny_gguf();
  builder.tensors.push_back({"rope_freqs.weight", {4}, 0, bytes_of_all<float>({1, 2, 8, 32})});
  EXPECT_THAT(open(builder)->config().rope.frequency_factors, ::testing::ElementsAre(1, 2, 8, 32));
  builder.tensor("rope_freqs.weight") = {"rope_freqs.weight", {2}, 0, bytes_of_all<float>({1, 2})};
  expect_error([&] { open(builder); }, {"frequency factor"});
  builder = tiny_gguf();
  builder.set_string("llama.rope.scaling.type", "yarn");
  expect_error([&] { open(builder); }, {"llama.rope.scaling.type", "yarn"});
}

TEST_F(GgufCheckpointTest, TiesTheHeadToTheEmbeddingWhenThereIsNone) {
  GgufBuilder builder = tiny_gguf();
  builder.remove_tensor("output.weight");
  const auto checkpoint = open(builder);
  EXPECT_TRUE(checkpoint->config().tied_embeddings);
  EXPECT_EQ(checkpoint->find("lm_head.weight"), nullptr);
}

TEST_F(GgufCheckpointTest, ReadsTheTokenizer) {
  GgufBuilder builder = tiny_gguf();
  builder.set_u32("tokenizer.ggml.eot_token_id", 1);
  builder.set_strings("tokenizer.chat_templates", {"tool_use"});
  builder.set_string("tokenizer.chat_template.tool_use", "{{ tools }}");
  const auto checkpoint = open(builder);
  const TokenizerSource& source = checkpoint->tokenizer();
  EXPECT_EQ(source.kind, TokenizerSource::Kind::bpe);
  EXPECT_TRUE(source.byte_level);
  EXPECT_EQ(source.pre_tokenizer, "smollm");
  EXPECT_FALSE(source.ignore_merges);
  ASSERT_EQ(source.tokens.size(), kVocab);
  EXPECT_EQ(source.tokens[7], "Ġa");
  EXPECT_THAT(source.merges, ::testing::ElementsAre("a b", "Ġ a", "d e"));
  ASSERT_EQ(source.added_tokens.size(), 3u);
  EXPECT_TRUE(source.added_tokens[0].special);
  EXPECT_EQ(source.added_tokens[2].text, "<think>");
  EXPECT_FALSE(source.added_tokens[2].special);
  EXPECT_EQ(source.bos_id, 1u);
  EXPECT_EQ(source.eos_id, 0u);
  EXPECT_EQ(source.unk_id, std::nullopt);
  EXPECT_EQ(source.add_bos, false);
  EXPECT_EQ(source.add_eos, std::nullopt);
  ASSERT_EQ(source.chat_templates.size(), 2u);
  EXPECT_EQ(source.chat_templates[0].text, "{{ messages }}");
  EXPECT_EQ(source.chat_templates[1].name, "tool_use");
  EXPECT_THAT(checkpoint->generation_defaults().eos_token_ids, ::testing::ElementsAre(0, 1));
}

TEST_F(GgufCheckpointTest, ReadsASentencePieceTokenizer) {
  GgufBuilder builder = tiny_gguf();
  builder.set_string("tokenizer.ggml.model", "llama");
  builder.remove("tokenizer.ggml.merges");
  expect_error([&] { open(builder); }, {"tokenizer.ggml.scores"});
  builder.set_array("tokenizer.ggml.scores", 6, kVocab,
                    bytes_of_all(std::vector<float>(kVocab, -1.5f)));
  builder.set_bool("tokenizer.ggml.add_space_prefix", true);
  const auto checkpoint = open(builder);
  const TokenizerSource& source = checkpoint->tokenizer();
  EXPECT_EQ(source.kind, TokenizerSource::Kind::sentencepiece);
  EXPECT_THAT(source.scores, ::testing::Each(-1.5f));
  EXPECT_EQ(source.types[11], TokenType::user_defined);
  EXPECT_EQ(source.add_space_prefix, true);
}

TEST_F(GgufCheckpointTest, SaysWhatItDoesNotSupportOrMisses) {
  const struct {
    std::function<void(GgufBuilder&)> change;
    std::vector<std::string> message;
  } cases[] = {
      {[](auto& b) { b.set_string("general.architecture", "gemma2"); }, {"gemma2", "llama"}},
      {[](auto& b) { b.remove("general.architecture"); }, {"general.architecture", "missing"}},
      {[](auto& b) { b.remove("llama.block_count"); }, {"llama.block_count", "missing"}},
      {[](auto& b) { b.set_u32("llama.block_count", 3); }, {"model.layers.2", "missing"}},
      {[](auto& b) { b.set_u32("llama.block_count", 1); }, {"blk.1.", "no such tensor"}},
      {[](auto& b) { b.set_u32("llama.block_count", 0); }, {"layer"}},
      {[](auto& b) { b.set_u32("llama.expert_count", 8); }, {"expert_count", "mixture"}},
      {[](auto& b) { b.set_u32("llama.attention.head_count", 5); }, {"head_count"}},
      {[](auto& b) { b.set_u32("llama.attention.head_count", 0); }, {"head_count"}},
      {[](auto& b) { b.set_u32("llama.attention.head_count_kv", 3); }, {"multiple of key-value"}},
      {[](auto& b) { b.set_u32("llama.attention.head_count_kv", 0); }, {"multiple of key-value"}},
      {[](auto& b) { b.set_u32("llama.attention.key_length", 7); }, {"even head"}},
      {[](auto& b) { b.set_u32("llama.rope.dimension_count", 4); }, {"rope.dimension_count"}},
      {[](auto& b) { b.set_u32("llama.vocab_size", 13); }, {"llama.vocab_size", "12"}},
      {[](auto& b) { b.set_u32("llama.feed_forward_length", 65); }, {"shape", "[65, 32]"}},
      {[](auto& b) { b.set("llama.context_length", 10, bytes_of(uint64_t{1} << 32)); },
       {"context_length"}},
      {[](auto& b) { b.set_f32("llama.attention.layer_norm_rms_epsilon", 0); }, {"epsilon"}},
      {[](auto& b) { b.remove_tensor("token_embd.weight"); }, {"token_embd.weight"}},
      {[](auto& b) { b.remove_tensor("blk.1.ffn_up.weight"); }, {"layers.1.mlp.up_proj"}},
      {[](auto& b) {
         b.tensors.push_back({"blk.0.attn_output.bias", {32}, 0, std::string(128, 0)});
       },
       {"attn_output.bias"}},
      {[](auto& b) {
         b.tensor("output_norm.weight") = {"output_norm.weight", {32}, 8, std::string(34, 0)};
       },
       {"model.norm.weight", "Q8_0"}},
      {[](auto& b) { b.set_string("tokenizer.ggml.model", "bert"); }, {"bert"}},
      {[](auto& b) { b.remove("tokenizer.ggml.tokens"); }, {"tokenizer.ggml.tokens"}},
      {[](auto& b) { b.remove("tokenizer.ggml.merges"); }, {"tokenizer.ggml.merges"}},
      {[](auto& b) { b.set_strings("tokenizer.ggml.tokens", std::vector<std::string>(13)); },
       {"13 tokens", "12 rows"}},
      {[](auto& b) { b.set_array("tokenizer.ggml.token_type", 5, 1, bytes_of(int32_t{1})); },
       {"token_type", "one type for each"}},
      {[](auto& b) {
         b.set_array("tokenizer.ggml.token_type", 5, 12, bytes_of_all(std::vector<int32_t>(12, 7)));
       },
       {"token_type", "1 to 6"}},
      {[](auto& b) { b.set_u32("tokenizer.ggml.eos_token_id", 12); }, {"eos_token_id", "12"}},
      {[](auto& b) { b.set_strings("tokenizer.chat_templates", {"x"}); }, {"chat_template.x"}},
  };
  for (const auto& [change, message] : cases) {
    GgufBuilder builder = tiny_gguf();
    change(builder);
    expect_error([&, &b = builder] { open(b); }, message);
  }
}

TEST_F(GgufCheckpointTest, SaysWhatAPathIsNot) {
  expect_error([&] { open_checkpoint(folder_.path() / "absent"); }, {"absent", "no such file"});
  expect_error([&] { open_checkpoint(folder_.write("a.bin", "hello")); }, {"a.bin", "GGUF"});
  expect_error([&] { open_checkpoint(folder_.write("empty.gguf", "")); }, {"empty.gguf", "GGUF"});
  expect_error([&] { open_checkpoint(folder_.write("m.safetensors", "x")); }, {"folder"});
  expect_error([&] { open_checkpoint("/dev/null"); }, {"/dev/null", "expected a GGUF file"});
  expect_error([&] { open_checkpoint(folder_.path()); }, {"config.json", "missing"});
}

}  // namespace
}  // namespace flexllm::formats::testing
