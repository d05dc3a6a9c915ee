// The default model itself: every tensor has the bits that the `gguf` Python package and the
// undone order of q and k give (tests/make_golden.py --model).
#include <gtest/gtest.h>

#include <cstdlib>
#include <fstream>
#include <sstream>
#include <string>

#include "formats/checkpoint.h"
#include "formats/sha256.h"

namespace flexllm::formats {
namespace {

std::unique_ptr<Checkpoint> open_default_model() {
  const char* path = std::getenv("FLEXLLM_DEFAULT_GGUF");
  if (path == nullptr) {
    throw Error("set FLEXLLM_DEFAULT_GGUF to the GGUF file of the default model");
  }
  return open_checkpoint(path);
}

TEST(DefaultModel, HasTheGoldenTensors) {
  const auto checkpoint = open_default_model();
  std::ifstream golden(std::string(FLEXLLM_FORMATS_GOLDEN) + "/default_model.sha256");
  std::string digest, name;
  size_t count = 0;
  while (golden >> digest >> name) {
    const auto values = checkpoint->read_f32(name);
    ASSERT_EQ(to_hex(sha256(std::as_bytes(std::span(values)))), digest) << name;
    ++count;
  }
  EXPECT_EQ(count, checkpoint->tensors().size());
}

TEST(DefaultModel, HasThePublishedShapeAndTokenizer) {
  const auto checkpoint = open_default_model();
  const ModelConfig& config = checkpoint->config();
  EXPECT_EQ(config.layers, 30u);
  EXPECT_EQ(config.hidden, 576u);
  EXPECT_EQ(config.ffn, 1536u);
  EXPECT_EQ(config.heads, 9u);
  EXPECT_EQ(config.kv_heads, 3u);
  EXPECT_EQ(config.head_dim, 64u);
  EXPECT_EQ(config.vocab, 49152u);
  EXPECT_EQ(config.context_length, 8192u);
  EXPECT_EQ(config.rope.theta, 100000.0);
  EXPECT_TRUE(config.tied_embeddings);
  const TokenizerSource& tokenizer = checkpoint->tokenizer();
  EXPECT_EQ(tokenizer.tokens.size(), 49152u);
  EXPECT_EQ(tokenizer.merges.size(), 48900u);
  EXPECT_EQ(tokenizer.pre_tokenizer, "smollm");
  ASSERT_TRUE(tokenizer.eos_id.has_value());
  EXPECT_EQ(tokenizer.tokens[*tokenizer.eos_id], "<|im_end|>");
  ASSERT_EQ(tokenizer.chat_templates.size(), 1u);
}

}  // namespace
}  // namespace flexllm::formats
