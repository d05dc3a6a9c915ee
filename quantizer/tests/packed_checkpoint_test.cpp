// A packed model read back: the integers that were packed, and how the kernels round.
#include "quantizer/packing/packed_checkpoint.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "formats/error.h"
#include "quantizer/algebra/hadamard.h"
#include "quantizer/packing/pack.h"
#include "quantizer/rounding/weights.h"
#include "quantizer/tests/memory_checkpoint.h"

namespace flexllm::quantizer {
namespace {

namespace fs = std::filesystem;
using testing::MemoryCheckpoint;

formats::ModelConfig packed_config() {
  formats::ModelConfig config = testing::tiny_config();
  config.layers = 2;
  config.ffn = 100;  // fills no tile and no group
  config.attention_bias = true;
  config.qk_norm = true;
  config.tied_embeddings = true;
  return config;
}

class PackedFile {
 public:
  PackedFile(const formats::Checkpoint& checkpoint, const std::string& scheme, uint32_t streams)
      : path_(fs::temp_directory_path() / ("packed_checkpoint_" + std::to_string(::getpid()))) {
    PackOptions options;
    options.scheme = Scheme::parse(scheme);
    options.streams = streams;
    pack(checkpoint, path_, options);
  }
  ~PackedFile() { fs::remove(path_); }
  const fs::path& path() const { return path_; }

 private:
  fs::path path_;
};

TEST(PackedCheckpoint, HoldsWhatWasPacked) {
  const MemoryCheckpoint source(packed_config());
  for (const char* scheme : {"w4g64a8kv8-lm8-r4", "w8a4kv8-lm4a4", "w4a4kv8-lm8-p8"}) {
    for (const uint32_t streams : {1u, 3u, 16u}) {
      const PackedFile file(source, scheme, streams);
      const formats::PackedModel packed(file.path());
      const PackedCheckpoint checkpoint(packed);
      const Scheme parsed = Scheme::parse(scheme);
      for (const formats::TensorInfo& info : checkpoint.tensors()) {
        const bool head = info.name == "lm_head.weight";
        const std::string from = head ? "model.embed_tokens.weight" : info.name;
        ASSERT_NE(source.find(from), nullptr) << from;
        EXPECT_EQ(info.shape, source.find(from)->shape);
        std::vector<float> expected = source.read_f32(from);
        const std::vector<float> values = checkpoint.read_f32(info.name);
        const bool exact = info.shape.size() == 1;
        const bool embedding = info.name == "model.embed_tokens.weight";
        if (!exact && !embedding) {
          const MatrixPrecision& precision = head ? parsed.lm_head : parsed.linears;
          const bool turned = parsed.rotate_down && info.name.ends_with("down_proj.weight");
          for (size_t at = 0; at < expected.size(); at += info.shape[1]) {
            const std::span<float> row(expected.data() + at, info.shape[1]);
            if (turned) walsh_hadamard(row, 4, 0.5f);
            const auto back =
                dequantize_row(quantize_row(row, precision.weight_bits, precision.grouped));
            std::copy(back.begin(), back.end(), row.begin());
            if (turned) walsh_hadamard(row, 4, 0.5f);
          }
        }
        for (size_t i = 0; i < values.size(); ++i) {
          const double tolerance = exact ? 0 : embedding ? 2e-3 : 2e-6;
          ASSERT_NEAR(values[i], expected[i], tolerance) << info.name << " " << i << " " << scheme;
        }
      }
      EXPECT_EQ(checkpoint.tensors().size(), source.tensors().size() + 1);
      const FloatOptions& options = checkpoint.float_options();
      EXPECT_EQ(options.rotate_down, parsed.rotate_down);
      EXPECT_EQ(options.probability_bits, parsed.probability_bits);
      EXPECT_EQ(options.lm_head, RowRounding{parsed.lm_head.activation_bits});
      ASSERT_EQ(options.activations.size(), 2u);
      for (const Stage stage : kStages) {
        EXPECT_EQ(options.activations[1].of(stage),
                  RowRounding::before(parsed.linears.encoded(false)));
      }
    }
  }
}

TEST(PackedCheckpoint, RefusesRowsThatAreNotThere) {
  const MemoryCheckpoint source(packed_config());
  const PackedFile file(source, "w8a8kv8-lm8", 2);
  const formats::PackedModel packed(file.path());
  const PackedCheckpoint checkpoint(packed);
  std::vector<float> row(48);
  EXPECT_NO_THROW(checkpoint.read_rows_f32("lm_head.weight", 69, 1, row));
  EXPECT_THROW(checkpoint.read_rows_f32("lm_head.weight", 70, 1, row), formats::Error);
  EXPECT_THROW(checkpoint.read_rows_f32("lm_head.weight", 0, 2, row), formats::Error);
  EXPECT_THROW(checkpoint.read_rows_f32("no.weight", 0, 1, row), formats::Error);
  EXPECT_EQ(checkpoint.find("model.layers.2.mlp.up_proj.weight"), nullptr);
}

}  // namespace
}  // namespace flexllm::quantizer
