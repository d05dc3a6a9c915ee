// Rotations are orthogonal, the same everywhere, and leave the model's function as it was.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <random>
#include <string>

#include "formats/error.h"
#include "quantizer/algebra/products.h"
#include "quantizer/float_model/log_probabilities.h"
#include "quantizer/rotation/rotated_checkpoint.h"
#include "quantizer/rotation/rotations.h"
#include "quantizer/tests/memory_checkpoint.h"

namespace flexllm::quantizer {
namespace {

using testing::MemoryCheckpoint;

bool same(std::span<const float> a, std::span<const float> b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size_bytes()) == 0;
}

double distance(std::span<const float> a, std::span<const float> b) {
  double largest = a.size() == b.size() ? 0 : INFINITY;
  for (size_t i = 0; i < a.size(); ++i) {
    largest = std::max(largest, std::fabs(double{a[i]} - b[i]));
  }
  return largest;
}

double distance_from_orthogonal(const Matrix& m, Workers& workers) {
  Matrix product(m.rows(), m.rows());
  multiply_transposed(product, m, m, workers);
  for (size_t i = 0; i < m.rows(); ++i) product(i, i) -= 1;
  return distance(product.elements(), std::vector<float>(m.rows() * m.rows()));
}

Matrix random_matrix(size_t rows, size_t cols, uint32_t seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  Matrix m(rows, cols);
  for (float& value : m.elements()) value = normal(random);
  return m;
}

TEST(HadamardMatrix, HasOrthogonalRowsOfOnes) {
  Workers workers(1);
  for (const size_t order : {1u, 2u, 4u, 8u, 12u, 20u, 24u, 28u, 36u, 44u, 60u, 76u, 104u, 108u,
                             128u, 576u, 960u, 1536u}) {
    const auto h = hadamard_matrix(order);
    ASSERT_TRUE(h) << order;
    Matrix product(order, order);
    multiply_transposed(product, *h, *h, workers);
    for (size_t i = 0; i < order; ++i) {
      for (size_t j = 0; j < order; ++j) {
        ASSERT_EQ(std::fabs((*h)(i, j)), 1);
        ASSERT_EQ(product(i, j), i == j ? static_cast<float>(order) : 0) << order;
      }
    }
  }
  for (const size_t order : {0u, 3u, 6u, 10u, 18u, 100u}) EXPECT_FALSE(hadamard_matrix(order));
}

TEST(Rotation, IsOrthogonalAndTheSameOnAnyNumberOfThreads) {
  Workers one(1);
  Workers two(2);
  for (const size_t size : {1u, 8u, 64u, 100u, 172u, 192u, 576u}) {
    const Rotation a = Rotation::random(size, 7, one);
    const Rotation b = Rotation::random(size, 7, two);
    EXPECT_LT(distance_from_orthogonal(a.matrix(), one), 1e-5) << size;
    EXPECT_TRUE(same(a.matrix().elements(), b.matrix().elements())) << size;
    if (size > 8) {
      const Rotation other = Rotation::random(size, 8, one);
      EXPECT_FALSE(same(a.matrix().elements(), other.matrix().elements())) << size;
    }
  }
  EXPECT_TRUE(Rotation::random(100, 1, one).signs().empty());
  EXPECT_EQ(Rotation::random(576, 1, one).signs().size(), 576u);
}

TEST(Rotation, TurnsRowsAsItsMatrixDoes) {
  Workers one(1);
  Workers two(2);
  for (const size_t size : {8u, 100u, 576u}) {
    for (const size_t pieces : {1u, 3u}) {
      const Rotation rotation = Rotation::random(size, 3, one);
      const Matrix rows = random_matrix(37, size * pieces, 5);
      Matrix expected(37, size * pieces);
      const Matrix matrix = rotation.matrix();
      for (size_t p = 0; p < pieces; ++p) {
        multiply(expected.view().part(0, 37, p * size, size),
                 rows.view().part(0, 37, p * size, size), matrix, one);
      }
      Matrix turned = rows;
      rotation.apply(turned, two);
      EXPECT_LT(distance(turned.elements(), expected.elements()), 1e-5) << size;
      // A row alone gives the same bits.
      Matrix alone(1, rows.cols(), {rows.row(20).begin(), rows.row(20).end()});
      rotation.apply(alone, one);
      EXPECT_TRUE(same(alone.elements(), turned.row(20)));
    }
  }
  Matrix odd(2, 9);
  EXPECT_THROW(Rotation::random(8, 1, one).apply(odd, one), std::invalid_argument);
}

TEST(Rotation, RefusesWhatIsNoRotation) {
  Workers workers(1);
  EXPECT_THROW(Rotation::dense(Matrix(2, 3), workers), std::invalid_argument);
  EXPECT_THROW(Rotation::dense(Matrix(2, 2, {1, 0, 0, 1.1f}), workers), std::invalid_argument);
  EXPECT_THROW(Rotation::dense(Matrix(2, 2, {1, 0, 0, NAN}), workers), std::invalid_argument);
  EXPECT_THROW(Rotation::hadamard({1, -1, 0.5f, 1}), std::invalid_argument);
  EXPECT_THROW(Rotation::hadamard({1, -1, 1}), std::invalid_argument);
  EXPECT_NO_THROW(Rotation::dense(Matrix(2, 2, {0, 1, 1, 0}), workers));
}

class RotationsFile : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string name = (std::filesystem::temp_directory_path() / "rotations-XXXXXX").string();
    ASSERT_NE(mkdtemp(name.data()), nullptr);
    folder_ = name;
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  std::string refusal(const std::filesystem::path& path, const formats::ModelConfig& config) {
    try {
      load_rotations(path, config, workers_);
      return "";
    } catch (const formats::Error& error) {
      return error.what();
    }
  }

  std::filesystem::path folder_;
  Workers workers_{1};
};

TEST_F(RotationsFile, GivesBackWhatWasSaved) {
  formats::ModelConfig config = testing::tiny_config();
  for (const uint32_t head_dim : {8u, 10u}) {
    config.head_dim = head_dim;  // 10: dense
    for (const auto& [residual, values] : {std::pair{true, true}, {true, false}, {false, true}}) {
      const Rotations saved = random_rotations(config, residual, values, 4, workers_);
      const auto path = folder_ / "rotations.safetensors";
      save_rotations(saved, path);
      const Rotations loaded = load_rotations(path, config, workers_);
      EXPECT_EQ(loaded.residual.empty(), !residual);
      EXPECT_EQ(loaded.values.size(), values ? config.layers : 0u);
      EXPECT_EQ(digest(loaded), digest(saved));
      EXPECT_NE(digest(loaded), digest(random_rotations(config, residual, values, 5, workers_)));
    }
  }
}

TEST_F(RotationsFile, RefusesOthers) {
  const formats::ModelConfig config = testing::tiny_config();
  const auto path = folder_ / "rotations.safetensors";
  save_rotations(random_rotations(config, true, true, 4, workers_), path);
  formats::ModelConfig other = config;
  other.hidden = 64;
  EXPECT_NE(refusal(path, other).find("\"residual\": is not F32 of the model's size"),
            std::string::npos);
  other = config;
  other.layers = 4;
  EXPECT_NE(refusal(path, other).find("\"values.3\": is missing"), std::string::npos);
  EXPECT_NE(refusal(folder_ / "none", config), "");
  std::filesystem::resize_file(path, std::filesystem::file_size(path) - 4);
  EXPECT_NE(refusal(path, config), "");
  std::ofstream(path) << "text";
  EXPECT_NE(refusal(path, config), "");
}

TEST(RotatedCheckpoint, GivesTheSameRowsInAnyPieces) {
  formats::ModelConfig config = testing::tiny_config();
  config.attention_bias = true;
  config.tied_embeddings = true;
  const MemoryCheckpoint original(config);
  Workers workers(1);
  const RotatedCheckpoint whole(original, random_rotations(config, true, true, 0, workers), 1);
  const RotatedCheckpoint pieces(original, random_rotations(config, true, true, 0, workers), 2);
  EXPECT_FALSE(whole.config().tied_embeddings);
  ASSERT_NE(whole.find("lm_head.weight"), nullptr);
  EXPECT_EQ(whole.tensors().size(), original.tensors().size() + 1);
  for (const formats::TensorInfo& info : whole.tensors()) {
    const std::vector<float> expected = whole.read_f32(info.name);
    const uint64_t rows = info.shape[0];
    const uint64_t width = expected.size() / rows;
    for (uint64_t first = 0; first < rows; first += 5) {
      const uint64_t count = std::min<uint64_t>(5, rows - first);
      std::vector<float> part(count * width);
      pieces.read_rows_f32(info.name, first, count, part);
      EXPECT_TRUE(same(part, std::span(expected).subspan(first * width, part.size())))
          << info.name << " row " << first;
    }
    std::vector<float> row(width);
    EXPECT_THROW(whole.read_rows_f32(info.name, rows, 1, row), formats::Error);
    EXPECT_THROW(whole.read_rows_f32(info.name, 0, 2, row), formats::Error);
  }
  EXPECT_EQ(whole.read_f32("model.norm.weight"), std::vector<float>(config.hidden, 1.0f));
  EXPECT_EQ(whole.find("model.layers.3.mlp.up_proj.weight"), nullptr);
  EXPECT_THROW(whole.read_f32("no.such.tensor"), formats::Error);
}

std::vector<double> log_probabilities(const formats::Checkpoint& checkpoint) {
  Workers workers(1);
  const FloatModel model(checkpoint, {}, workers);
  std::mt19937 random(3);
  std::vector<ScoredWindow> windows(2);
  for (ScoredWindow& window : windows) {
    for (int i = 0; i < 40; ++i)
      window.tokens.push_back(static_cast<uint32_t>(random() % model.config().vocab));
  }
  return target_log_probabilities(model, windows);
}

TEST(RotatedCheckpoint, IsTheSameFunction) {
  Workers workers(1);
  for (int variant = 0; variant < 8; ++variant) {
    formats::ModelConfig config = testing::tiny_config();
    config.tied_embeddings = variant % 2 == 0;
    config.attention_bias = variant % 4 >= 2;
    config.qk_norm = variant >= 4;
    if (variant == 5) config.hidden = 52;    // not the order of a Hadamard matrix known here
    if (variant == 6) config.head_dim = 20;  // one of Paley's
    if (variant == 7) config.head_dim = 10;  // none
    const MemoryCheckpoint original(config);
    const std::vector<double> expected = log_probabilities(original);
    for (const auto& [residual, values] : {std::pair{true, true}, {true, false}, {false, true}}) {
      const RotatedCheckpoint rotated(original,
                                      random_rotations(config, residual, values, 1, workers), 1);
      const std::vector<double> found = log_probabilities(rotated);
      ASSERT_EQ(found.size(), expected.size());
      for (size_t i = 0; i < found.size(); ++i) {
        EXPECT_NEAR(found[i], expected[i], 1e-4) << "variant " << variant;
      }
    }
  }
}

TEST(RotatedCheckpoint, LeavesAloneWhatItDoesNotTurn) {
  formats::ModelConfig config = testing::tiny_config();
  config.tied_embeddings = true;
  const MemoryCheckpoint original(config);
  Workers workers(1);
  const RotatedCheckpoint rotated(original, random_rotations(config, false, true, 0, workers), 1);
  EXPECT_TRUE(rotated.config().tied_embeddings);
  EXPECT_EQ(rotated.find("lm_head.weight"), nullptr);
  for (const formats::TensorInfo& info : rotated.tensors()) {
    const bool turned = info.name.find("v_proj") != std::string::npos ||
                        info.name.find("o_proj") != std::string::npos;
    EXPECT_EQ(rotated.read_f32(info.name) == original.read_f32(info.name), !turned) << info.name;
  }
}

TEST(RotatedCheckpoint, RefusesRotationsOfOtherSizes) {
  formats::ModelConfig config = testing::tiny_config();
  const MemoryCheckpoint original(config);
  Workers workers(1);
  formats::ModelConfig other = config;
  other.hidden = 96;
  EXPECT_THROW(RotatedCheckpoint(original, random_rotations(other, true, false, 0, workers), 1),
               std::invalid_argument);
  other = config;
  other.layers = 2;
  EXPECT_THROW(RotatedCheckpoint(original, random_rotations(other, false, true, 0, workers), 1),
               std::invalid_argument);
}

}  // namespace
}  // namespace flexllm::quantizer
