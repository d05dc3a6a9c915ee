// The packed model: what is written is read, and what was cut, damaged or made for another version
// is refused by name.
#include "formats/packed_model.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <fstream>
#include <limits>
#include <random>

#include "formats/error.h"
#include "formats/tests/files.h"

namespace flexllm::formats {
namespace {

using testing::read_whole;
using testing::TemporaryFolder;

PackedModelInfo tiny_info() {
  PackedModelInfo info;
  info.config.name = "tiny";
  info.config.layers = 2;
  info.config.hidden = 8;
  info.config.ffn = 12;
  info.config.heads = 2;
  info.config.kv_heads = 1;
  info.config.head_dim = 8;
  info.config.vocab = 5;
  info.config.context_length = 64;
  info.config.attention_bias = true;
  info.config.rope.scaling = RopeConfig::Scaling::llama3;
  info.config.rope.factor = 32;
  info.config.rope.frequency_factors = {1, 1.5f, 2, 4};
  info.generation.temperature = 0.6f;
  info.generation.top_k = 20;
  info.generation.eos_token_ids = {2, 4};
  TokenizerSource& t = info.tokenizer;
  t.tokens = {"a", "b", "<end>", std::string("\xff\xfe", 2), ""};
  t.types = {TokenType::normal, TokenType::normal, TokenType::control, TokenType::byte,
             TokenType::unused};
  t.scores = {0, -1, -2, -3, -4};
  t.merges = {"a b"};
  t.byte_level = true;
  t.pre_tokenizer = "smollm";
  t.sentencepiece_model = std::string("\0\xff\x01", 3);
  t.added_tokens = {{.id = 2, .text = "<end>", .special = true, .lstrip = true}};
  t.eos_id = 2;
  t.add_bos = false;
  t.chat_templates = {{"default", "{{ messages }}"}, {"tool_use", "{{ tools }}"}};
  info.scheme = "w8a8kv8-lm8";
  info.source = "tiny.gguf";
  info.source_sha256 = "00";
  return info;
}

std::vector<std::byte> noise(size_t size, unsigned seed) {
  std::mt19937 random(seed);
  std::vector<std::byte> bytes(size);
  for (std::byte& b : bytes) b = static_cast<std::byte>(random());
  return bytes;
}

std::vector<float> embedding_values() {
  std::vector<float> values(5 * 8);
  for (size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>(i) / 8 - 2;
  return values;
}

void write_tiny(const std::filesystem::path& path, DType embedding = DType::f16) {
  PackedModelWriter writer(path, tiny_info(), 3, 192, 128, embedding);
  for (uint32_t s = 0; s < 3; ++s) writer.write_arena(s, noise(192, s));
  writer.write_model_buffer(noise(128, 9));
  const std::vector<float> rows = embedding_values();
  writer.write_embedding(std::span(rows).first(16));
  writer.write_embedding(std::span(rows).subspan(16));
  writer.commit();
}

// Rows of a permutation with one sign turned: orthogonal, and exact.
HiddenBasis tiny_basis() {
  HiddenBasis basis;
  basis.matrix.assign(64, 0);
  for (size_t i = 0; i < 8; ++i) basis.matrix[i * 8 + (i * 3 + 1) % 8] = i == 2 ? -1.0f : 1.0f;
  for (size_t i = 0; i < 8; ++i) basis.final_gain.push_back(static_cast<float>(i) / 2 + 1);
  return basis;
}

void write_with_basis(const std::filesystem::path& path, HiddenBasis basis) {
  PackedModelInfo info = tiny_info();
  info.rotations_sha256 = "abc";
  PackedModelWriter writer(path, std::move(info), 1, 64, 64, DType::f16, std::move(basis));
  writer.write_arena(0, noise(64, 0));
  writer.write_model_buffer(noise(64, 9));
  writer.write_embedding(embedding_values());
  writer.commit();
}

std::string refusal(const std::filesystem::path& path,
                    PackedModel::Check check = PackedModel::Check::sizes) {
  try {
    PackedModel model(path, check);
    return "";
  } catch (const Error& error) {
    return error.what();
  }
}

TEST(PackedModel, SaysHowHiddenStatesAreStored) {
  const TemporaryFolder folder;
  const auto path = folder.path() / "tiny.safetensors";
  write_tiny(path);
  EXPECT_FALSE(PackedModel(path).hidden_basis());
  write_with_basis(path, tiny_basis());
  const PackedModel model(path, PackedModel::Check::checksums);
  EXPECT_EQ(model.info().rotations_sha256, "abc");
  const auto basis = model.hidden_basis();
  ASSERT_TRUE(basis);
  EXPECT_EQ(basis->matrix, tiny_basis().matrix);
  EXPECT_EQ(basis->final_gain, tiny_basis().final_gain);
  const std::vector<float> state = {1, 2, 3, 4, 5, 6, 7, 8};
  std::vector<float> stored(8);
  std::vector<float> back(8);
  basis->store(state, stored);
  EXPECT_EQ(stored, (std::vector<float>{6, 1, 4, 7, 2, 5, 8, -3}));
  basis->restore(stored, false, back);
  EXPECT_EQ(back, state);
  basis->restore(stored, true, back);
  EXPECT_EQ(back, (std::vector<float>{1, 3, 6, 10, 15, 21, 28, 36}));
  EXPECT_THROW(basis->store(state, std::span(back).first(7)), std::invalid_argument);
  EXPECT_THROW(basis->restore(state, false, std::span(back).first(7)), std::invalid_argument);
}

TEST(PackedModel, RefusesABasisOfAnotherSizeOrWithoutItsParts) {
  const TemporaryFolder folder;
  const auto path = folder.path() / "tiny.safetensors";
  HiddenBasis basis = tiny_basis();
  basis.matrix.resize(56);
  EXPECT_THROW(write_with_basis(path, basis), Error);
  EXPECT_FALSE(std::filesystem::exists(path));
  write_with_basis(path, tiny_basis());
  const std::string whole = read_whole(path);
  const auto replaced = [&](std::string_view from, std::string_view to) {
    std::string text = whole;
    text.replace(text.find(from), from.size(), to);
    std::ofstream(path, std::ios::binary) << text;
    return refusal(path);
  };
  EXPECT_NE(replaced("\"basis\"", "\"basic\"").find("\"basis\": is missing"), std::string::npos);
  EXPECT_NE(replaced("\"final_gain\"", "\"final_gaim\"").find("\"final_gain\": is missing"),
            std::string::npos);
  EXPECT_NE(replaced("\"gains\"", "\"gainz\"").find("is there, but"), std::string::npos);
  EXPECT_NE(replaced("\"folded\"", "\"fooled\"").find("is not folded"), std::string::npos);
  EXPECT_NE(replaced("[8,8]", "[64 ]").find("is not F32"), std::string::npos);
}

TEST(PackedModel, GivesBackWhatWasWritten) {
  const TemporaryFolder folder;
  for (const DType type : {DType::f16, DType::f32}) {
    const auto path = folder.path() / "tiny.safetensors";
    write_tiny(path, type);
    ASSERT_TRUE(PackedModel::is_packed(path));
    const PackedModel model(path, PackedModel::Check::checksums);
    const PackedModelInfo expected = tiny_info();
    EXPECT_EQ(model.streams(), 3u);
    for (uint32_t s = 0; s < 3; ++s) {
      const auto bytes = noise(192, s);
      EXPECT_TRUE(std::ranges::equal(model.arena(s), bytes));
    }
    EXPECT_TRUE(std::ranges::equal(model.model_buffer(), noise(128, 9)));
    std::vector<float> row(8);
    model.embedding_row(3, row);
    const auto values = embedding_values();
    EXPECT_TRUE(std::ranges::equal(row, std::span(values).subspan(24, 8)));
    EXPECT_THROW(model.embedding_row(5, row), std::out_of_range);

    EXPECT_EQ(model.config().name, "tiny");
    EXPECT_EQ(model.config().kv_heads, 1u);
    EXPECT_TRUE(model.config().attention_bias);
    EXPECT_EQ(model.config().rope.scaling, RopeConfig::Scaling::llama3);
    EXPECT_EQ(model.config().rope.factor, 32);
    EXPECT_EQ(model.config().rope.frequency_factors, expected.config.rope.frequency_factors);
    EXPECT_EQ(model.info().generation.temperature, 0.6f);
    EXPECT_FALSE(model.info().generation.top_p);
    EXPECT_EQ(model.info().generation.eos_token_ids, expected.generation.eos_token_ids);
    const TokenizerSource& t = model.info().tokenizer;
    EXPECT_EQ(t.tokens, expected.tokenizer.tokens);
    EXPECT_EQ(t.types, expected.tokenizer.types);
    EXPECT_EQ(t.scores, expected.tokenizer.scores);
    EXPECT_EQ(t.merges, expected.tokenizer.merges);
    EXPECT_EQ(t.sentencepiece_model, expected.tokenizer.sentencepiece_model);
    EXPECT_EQ(t.pre_tokenizer, "smollm");
    ASSERT_EQ(t.added_tokens.size(), 1u);
    EXPECT_TRUE(t.added_tokens[0].special);
    EXPECT_TRUE(t.added_tokens[0].lstrip);
    EXPECT_EQ(t.eos_id, 2u);
    EXPECT_FALSE(t.bos_id);
    EXPECT_EQ(t.add_bos, false);
    ASSERT_EQ(t.chat_templates.size(), 2u);
    EXPECT_EQ(t.chat_templates[1].text, "{{ tools }}");
  }
}

TEST(PackedModel, RefusesAnotherVersion) {
  const TemporaryFolder folder;
  const auto path = folder.path() / "tiny.safetensors";
  write_tiny(path);
  std::string bytes = read_whole(path);
  const std::string key = "\"contract_version\":\"";
  const size_t at = bytes.find(key);
  ASSERT_NE(at, std::string::npos);
  bytes[at + key.size()] = '7';
  EXPECT_NE(refusal(folder.write("old.safetensors", bytes)).find("version"), std::string::npos);
}

TEST(PackedModel, ChecksumsFindEveryDamagedTensor) {
  const TemporaryFolder folder;
  const auto path = folder.path() / "tiny.safetensors";
  write_tiny(path);
  const std::string bytes = read_whole(path);
  uint64_t header = 0;
  std::memcpy(&header, bytes.data(), sizeof header);
  for (size_t at = 8 + header; at < bytes.size(); at += 37) {
    std::string damaged = bytes;
    damaged[at] = static_cast<char>(damaged[at] ^ 0x10);
    EXPECT_NE(refusal(folder.write("damaged.safetensors", damaged), PackedModel::Check::checksums),
              "")
        << "byte " << at;
  }
}

TEST(PackedModel, CutAndMutatedFilesGiveErrors) {
  const TemporaryFolder folder;
  const auto path = folder.path() / "tiny.safetensors";
  write_tiny(path);
  const std::string bytes = read_whole(path);
  std::mt19937 random(5);
  for (int i = 0; i < 600; ++i) {
    std::string damaged = bytes;
    if (i % 3 == 0) {
      damaged.resize(random() % bytes.size());
    } else {
      for (int k = 0; k < 1 + i % 4; ++k)
        damaged[random() % damaged.size()] = static_cast<char>(random());
    }
    const auto file = folder.write("mutated.safetensors", damaged);
    refusal(file);  // anything but an Error escapes and fails the test
    PackedModel::is_packed(file);
  }
}

TEST(PackedModel, AFailedWriterLeavesTheOldFile) {
  const TemporaryFolder folder;
  const auto path = folder.path() / "tiny.safetensors";
  write_tiny(path);
  const std::string before = read_whole(path);
  {
    PackedModelWriter writer(path, tiny_info(), 3, 192, 128, DType::f16);
    writer.write_arena(0, noise(192, 0));
  }
  EXPECT_EQ(read_whole(path), before);
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(folder.path()), {}), 1);
}

TEST(ToF16, RoundsToNearestEvenAndSaturates) {
  for (uint32_t half = 0; half < 0x7c00; ++half) {
    const auto bits = static_cast<uint16_t>(half);
    float value = 0;
    to_f32(DType::f16, std::as_bytes(std::span(&bits, 1)), std::span(&value, 1));
    ASSERT_EQ(to_f16(value), bits);
    ASSERT_EQ(to_f16(-value), bits | 0x8000);
  }
  EXPECT_EQ(to_f16(1.0f + 0x1p-11f), 0x3c00);      // tie to even
  EXPECT_EQ(to_f16(1.0f + 3 * 0x1p-11f), 0x3c02);  // tie to even
  EXPECT_EQ(to_f16(0x1p-25f), 0x0000);             // tie to even
  EXPECT_EQ(to_f16(0x1.8p-24f), 0x0002);           // tie to even
  EXPECT_EQ(to_f16(1e9f), 0x7bff);
  EXPECT_EQ(to_f16(-std::numeric_limits<float>::infinity()), 0xfbff);
}

}  // namespace
}  // namespace flexllm::formats
