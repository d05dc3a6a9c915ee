// Packing as a whole: the same bytes on any number of threads and after an interruption, and
// refusals that leave nothing behind.
#include "quantizer/packing/pack.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <cmath>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <limits>
#include <memory>
#include <stdexcept>
#include <string>

#include "formats/error.h"
#include "formats/packed_model.h"
#include "formats/sha256.h"
#include "quantizer/packing/partial_run.h"
#include "quantizer/tests/memory_checkpoint.h"

namespace flexllm::quantizer {
namespace {

namespace fs = std::filesystem;
using testing::MemoryCheckpoint;

formats::ModelConfig packed_config() {
  formats::ModelConfig config = testing::tiny_config();
  config.attention_bias = true;
  config.tied_embeddings = true;
  return config;
}

// Rounds to nearest until it is stopped, and counts what it is asked for.
class StoppingRounder final : public Rounder {
 public:
  StoppingRounder(uint32_t last, std::string key, uint32_t* rounded, uint32_t* resumed)
      : last_(last), key_(std::move(key)), rounded_(rounded), resumed_(resumed) {}
  std::string key() const override { return key_; }
  LayerRows round_layer(uint32_t layer, LayerWeights weights, const Scheme& scheme,
                        Workers& workers) override {
    if (layer == last_) throw std::runtime_error("stopped");
    ++*rounded_;
    return nearest_.round_layer(layer, std::move(weights), scheme, workers);
  }
  void resume_layer(uint32_t /*layer*/, LayerWeights /*weights*/, const LayerRows& /*rows*/,
                    const Scheme& /*scheme*/, Workers& /*workers*/) override {
    ++*resumed_;
  }
  std::vector<QuantizedRow> round_lm_head(ConstView weights, const Scheme& scheme,
                                          Workers& workers) override {
    return nearest_.round_lm_head(weights, scheme, workers);
  }

 private:
  uint32_t last_;
  std::string key_;
  uint32_t* rounded_;
  uint32_t* resumed_;
  NearestRounder nearest_;
};

class Pack : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string name = (fs::temp_directory_path() / "pack-XXXXXX").string();
    ASSERT_NE(mkdtemp(name.data()), nullptr);
    folder_ = name;
  }
  void TearDown() override { fs::remove_all(folder_); }

  fs::path file(const char* name) const { return folder_ / name; }
  static std::string sum(const fs::path& path) {
    return formats::to_hex(formats::sha256_file(path));
  }
  size_t entries() const {
    return static_cast<size_t>(
        std::distance(fs::directory_iterator(folder_), fs::directory_iterator()));
  }
  PackOptions options(const char* scheme) const {
    PackOptions options;
    options.scheme = Scheme::parse(scheme);
    options.streams = 3;
    options.threads = 1;
    return options;
  }
  std::string refusal(const formats::Checkpoint& checkpoint, const PackOptions& options) {
    try {
      pack(checkpoint, file("refused"), options);
      return "";
    } catch (const std::exception& error) {
      EXPECT_FALSE(fs::exists(file("refused")));
      return error.what();
    }
  }

  fs::path folder_;
};

TEST_F(Pack, GivesTheSameBytesOnAnyNumberOfThreads) {
  const MemoryCheckpoint checkpoint(packed_config());
  for (const char* scheme :
       {"w8a8kv8-lm8-r4", "w4g64a8kv8-lm8-r124", "w4a4kv8-lm4a4-r12:1.down=w8a8,0.qkv=w8g64a4"}) {
    PackOptions one = options(scheme);
    PackOptions two = one;
    two.threads = 2;
    pack(checkpoint, file("one"), one);
    pack(checkpoint, file("two"), two);
    EXPECT_EQ(sum(file("one")), sum(file("two"))) << scheme;
    EXPECT_EQ(formats::PackedModel(file("one")).info().scheme, one.scheme.name());
  }
}

TEST_F(Pack, StatesTheBasisAndFoldsGains) {
  const MemoryCheckpoint checkpoint(packed_config());
  pack(checkpoint, file("plain"), options("w8a8kv8-lm8-r24"));
  EXPECT_FALSE(formats::PackedModel(file("plain")).hidden_basis());
  EXPECT_NE(formats::PackedModel(file("plain")).info().rotations_sha256, "");
  EXPECT_EQ(formats::PackedModel(file("plain")).info().rounding, "rtn");

  pack(checkpoint, file("rotated"), options("w8a8kv8-lm8-r124"));
  const formats::PackedModel model(file("rotated"), formats::PackedModel::Check::checksums);
  EXPECT_FALSE(model.config().tied_embeddings);
  const auto basis = model.hidden_basis();
  ASSERT_TRUE(basis);
  EXPECT_EQ(basis->final_gain, checkpoint.read_f32("model.norm.weight"));
  // The embedding is stored in that basis, in binary16.
  const std::vector<float> original = checkpoint.read_f32("model.embed_tokens.weight");
  std::vector<float> stored(48);
  std::vector<float> back(48);
  for (uint32_t token = 0; token < 70; ++token) {
    model.embedding_row(token, stored);
    basis->restore(stored, false, back);
    for (size_t i = 0; i < 48; ++i) EXPECT_NEAR(back[i], original[token * 48 + i], 4e-3);
  }
}

TEST_F(Pack, TakesRotationsThatAreGiven) {
  const MemoryCheckpoint checkpoint(packed_config());
  Workers workers(1);
  PackOptions given = options("w8a8kv8-lm8-r12");
  PackOptions seeded = given;
  seeded.rotation_seed = 9;
  given.rotations = random_rotations(checkpoint.config(), true, true, 9, workers);
  pack(checkpoint, file("given"), given);
  pack(checkpoint, file("seeded"), seeded);
  EXPECT_EQ(sum(file("given")), sum(file("seeded")));
  given.scheme = Scheme::parse("w8a8kv8-lm8-r1");
  EXPECT_NE(refusal(checkpoint, given).find("have R2"), std::string::npos);
  given.scheme = Scheme::parse("w8a8kv8-lm8-r2");
  EXPECT_NE(refusal(checkpoint, given).find("have R1"), std::string::npos);
}

TEST_F(Pack, GoesOnWhereItWasStopped) {
  const MemoryCheckpoint checkpoint(packed_config());
  uint32_t rounded = 0;
  uint32_t resumed = 0;
  uint32_t last = UINT32_MAX;
  std::string key = "a";
  PackOptions stopping = options("w4g64a8kv8-lm8-r124:2.o=w8a8");
  stopping.rounder = [&](const formats::Checkpoint& /*checkpoint*/, Workers& /*workers*/) {
    return std::make_unique<StoppingRounder>(last, key, &rounded, &resumed);
  };
  pack(checkpoint, file("whole"), stopping);
  EXPECT_EQ(formats::PackedModel(file("whole")).info().rounding, "a");

  const fs::path output = file("resumed");
  stopping.resumable = true;
  rounded = 0;
  last = 2;
  EXPECT_THROW(pack(checkpoint, output, stopping), std::runtime_error);
  EXPECT_FALSE(fs::exists(output));
  EXPECT_TRUE(fs::exists(file("resumed.partial")));
  EXPECT_EQ(rounded, 2u);
  // What a writer that was killed leaves behind does not disturb.
  std::ofstream(file("resumed.partial") / "layer.2.safetensors.partial-1-0") << "half";

  last = UINT32_MAX;
  stopping.threads = 2;
  pack(checkpoint, output, stopping);
  EXPECT_EQ(resumed, 2u);
  EXPECT_EQ(rounded, 3u);
  EXPECT_EQ(sum(output), sum(file("whole")));
  EXPECT_FALSE(fs::exists(file("resumed.partial")));

  // Another key begins anew.
  last = 2;
  EXPECT_THROW(pack(checkpoint, output, stopping), std::runtime_error);
  last = UINT32_MAX;
  key = "b";
  rounded = resumed = 0;
  pack(checkpoint, output, stopping);
  EXPECT_EQ(resumed, 0u);
  EXPECT_EQ(rounded, 3u);
  EXPECT_EQ(formats::PackedModel(output).info().rounding, "b");
}

TEST_F(Pack, UsesOnlyAFolderOfItsOwn) {
  const MemoryCheckpoint checkpoint(packed_config());
  PackOptions resumable = options("w8a8kv8-lm8");
  resumable.resumable = true;
  fs::create_directory(file("refused.partial"));
  std::ofstream(file("refused.partial") / "diary.txt") << "dear";
  EXPECT_NE(refusal(checkpoint, resumable).find("diary.txt"), std::string::npos);
  EXPECT_TRUE(fs::exists(file("refused.partial") / "diary.txt"));
  fs::remove_all(file("refused.partial"));
  std::ofstream(file("refused.partial")) << "a file";
  EXPECT_NE(refusal(checkpoint, resumable).find("cannot make the folder"), std::string::npos);
  fs::remove(file("refused.partial"));
  {
    const PartialRun other(file("refused"), "key");
    EXPECT_NE(refusal(checkpoint, resumable).find("another process"), std::string::npos);
  }
  EXPECT_EQ(refusal(checkpoint, resumable), "");
  EXPECT_EQ(entries(), 1u);
}

TEST_F(Pack, RefusesADamagedLayer) {
  const MemoryCheckpoint checkpoint(packed_config());
  uint32_t rounded = 0;
  uint32_t resumed = 0;
  PackOptions stopping = options("w8a8kv8-lm8");
  stopping.resumable = true;
  stopping.rounder = [&](const formats::Checkpoint& /*checkpoint*/, Workers& /*workers*/) {
    return std::make_unique<StoppingRounder>(2, "a", &rounded, &resumed);
  };
  EXPECT_EQ(refusal(checkpoint, stopping), "stopped");
  const fs::path layer = file("refused.partial") / "layer.1.safetensors";
  fs::resize_file(layer, fs::file_size(layer) - 1);
  EXPECT_NE(refusal(checkpoint, stopping).find("layer.1.safetensors"), std::string::npos);
  fs::copy_file(file("refused.partial") / "layer.0.safetensors", layer,
                fs::copy_options::overwrite_existing);
  EXPECT_EQ(refusal(checkpoint, stopping), "stopped");
}

TEST_F(Pack, RefusesWhatItCannotPack) {
  const std::string name = "model.layers.1.mlp.up_proj.weight";
  for (const char* scheme : {"w8a8kv8-lm8", "w8a8kv8-lm8-r124"}) {
    const PackOptions plain = options(scheme);
    for (const float bad :
         {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
      for (const std::string& where : {name, std::string("model.embed_tokens.weight"),
                                       std::string("model.layers.2.self_attn.v_proj.bias"),
                                       std::string("model.norm.weight")}) {
        MemoryCheckpoint checkpoint(packed_config());
        checkpoint.values(where).back() = bad;
        EXPECT_NE(refusal(checkpoint, plain).find("\"" + where + "\" has a value"),
                  std::string::npos);
      }
    }
    MemoryCheckpoint checkpoint(packed_config());
    checkpoint.remove(name);
    EXPECT_NE(refusal(checkpoint, plain).find(name), std::string::npos);
  }
  formats::ModelConfig config = packed_config();
  config.head_dim = 4;
  EXPECT_NE(refusal(MemoryCheckpoint(config), options("w8a8kv8-lm8")).find("head_dim"),
            std::string::npos);
  EXPECT_NE(refusal(MemoryCheckpoint(packed_config()), options("w8a8kv8-lm8:3.o=w4a8"))
                .find("layer 3 of a model with 3"),
            std::string::npos);
  EXPECT_EQ(entries(), 0u);
}

TEST_F(Pack, NeedsAFolderToWriteTo) {
  const MemoryCheckpoint checkpoint(packed_config());
  EXPECT_THROW(pack(checkpoint, file("none") / "x", options("w8a8kv8-lm8")), formats::Error);
}

TEST_F(Pack, ReportsItsShare) {
  const MemoryCheckpoint checkpoint(packed_config());
  PackOptions watched = options("w8a8kv8-lm8");
  double last = 0;
  watched.progress = [&last](double share) {
    EXPECT_GE(share, last);
    last = share;
  };
  pack(checkpoint, file("watched"), watched);
  EXPECT_EQ(last, 1);
}

}  // namespace
}  // namespace flexllm::quantizer
