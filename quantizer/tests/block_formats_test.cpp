// Block formats by hand, and which tensors of a checkpoint go through them. tests/conformance
// compares the values with the `gguf` package.
#include "quantizer/block_formats/block_formats.h"

#include <gtest/gtest.h>

#include <set>
#include <stdexcept>
#include <string>
#include <vector>

#include "quantizer/tests/memory_checkpoint.h"

namespace flexllm::quantizer {
namespace {

std::vector<float> rounded(BlockFormat format, std::vector<float> row) {
  round_to_blocks(format, row);
  return row;
}

TEST(BlockFormats, RoundAsTheirNamesSay) {
  std::vector<float> row(32);
  row[0] = -4;    // the widest: q4_0 steps by 0.5, from -4 to 3.5
  row[1] = 3.9f;  // beyond the last step
  row[2] = 0.3f;
  row[3] = -0.2f;
  const std::vector<float> q4_0 = rounded(BlockFormat::q4_0, row);
  EXPECT_EQ(q4_0[0], -4);
  EXPECT_EQ(q4_0[1], 3.5f);
  EXPECT_EQ(q4_0[2], 0.5f);
  EXPECT_EQ(q4_0[3], 0);
  row[1] = 11;  // q4_1 steps by 1 from -4 on
  const std::vector<float> q4_1 = rounded(BlockFormat::q4_1, row);
  EXPECT_EQ(q4_1[0], -4);
  EXPECT_EQ(q4_1[1], 11);
  EXPECT_EQ(q4_1[2], 0);
  row[1] = -127;  // q8_0 steps by 1
  row[2] = 2.5f;  // halves away from zero
  const std::vector<float> q8_0 = rounded(BlockFormat::q8_0, row);
  EXPECT_EQ(q8_0[1], -127);
  EXPECT_EQ(q8_0[2], 3);
  EXPECT_EQ(q8_0[3], 0);
}

TEST(BlockFormats, BlocksDoNotTouchEachOther) {
  for (const char* name : {"q4_0", "q4_1", "q8_0"}) {
    const BlockFormat format = parse_block_format(name);
    EXPECT_STREQ(to_string(format), name);
    std::vector<float> row(96, 0.0f);
    for (size_t i = 32; i < 64; ++i) row[i] = static_cast<float>(i);
    const std::vector<float> out = rounded(format, row);
    for (size_t i = 0; i < 32; ++i) {
      EXPECT_EQ(out[i], 0);
      EXPECT_NEAR(out[32 + i], row[32 + i], 8.1) << name;
      EXPECT_EQ(out[64 + i], 0);
    }
  }
  EXPECT_THROW(parse_block_format("q5_0"), std::invalid_argument);
  std::vector<float> short_row(31);
  EXPECT_THROW(round_to_blocks(BlockFormat::q8_0, short_row), std::invalid_argument);
}

TEST(BlockRoundedCheckpoint, RoundsMatricesAndNothingElse) {
  formats::ModelConfig config;
  config.layers = 1;
  config.hidden = 64;
  config.ffn = 48;  // rows of down are no multiple of 32
  config.heads = 4;
  config.kv_heads = 2;
  config.head_dim = 16;
  config.vocab = 50;
  config.attention_bias = true;
  const testing::MemoryCheckpoint source(config);
  for (const bool embeddings : {false, true}) {
    const BlockRoundedCheckpoint checkpoint(
        source, BlockFormat::q4_0, embeddings ? std::optional(BlockFormat::q8_0) : std::nullopt);
    std::set<std::string> changed;
    for (const formats::TensorInfo& info : checkpoint.tensors()) {
      const std::vector<float> before = source.read_f32(info.name);
      const std::vector<float> after = checkpoint.read_f32(info.name);
      if (before == after) continue;
      changed.insert(info.name);
      const bool outside = info.name.find("layers") == std::string::npos;
      std::vector<float> expected = before;
      round_to_blocks(outside ? BlockFormat::q8_0 : BlockFormat::q4_0, expected);
      EXPECT_EQ(after, expected) << info.name;
    }
    std::set<std::string> expected;
    for (const char* name : {"self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj",
                             "self_attn.o_proj", "mlp.gate_proj", "mlp.up_proj"}) {
      expected.insert(std::string("model.layers.0.") + name + ".weight");
    }
    if (embeddings) expected.insert({"model.embed_tokens.weight", "lm_head.weight"});
    EXPECT_EQ(changed, expected);
  }
}

}  // namespace
}  // namespace flexllm::quantizer
