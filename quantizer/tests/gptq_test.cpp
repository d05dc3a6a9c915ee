// GPTQ against its paper's algorithm in NumPy (make_golden.py), and what it promises on its own.
#include "quantizer/rounding/gptq.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <fstream>
#include <limits>
#include <nlohmann/json.hpp>
#include <random>
#include <stdexcept>
#include <vector>

#include "quantizer/algebra/products.h"

namespace flexllm::quantizer {
namespace {

Matrix random_weights(uint32_t seed, size_t outputs, size_t inputs) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(0, 0.05f);
  Matrix weights(outputs, inputs);
  for (float& w : weights.elements()) w = normal(random);
  return weights;
}

// X^T X of correlated inputs, an eighth of them large.
Matrix random_hessian(uint32_t seed, size_t inputs, size_t tokens, Workers& workers) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  Matrix sources(tokens, inputs);
  Matrix mixing(inputs, inputs);
  for (float& v : sources.elements()) v = normal(random);
  for (float& v : mixing.elements()) v = normal(random);
  for (size_t i = 0; i < inputs; i += 8) {
    for (size_t j = 0; j < inputs; ++j) mixing(j, i) *= 6;
  }
  Matrix x(tokens, inputs);
  multiply(x, sources, mixing, workers);
  Matrix hessian(inputs, inputs);
  symmetric_product(hessian, x, workers);
  return hessian;
}

std::vector<QuantizedRow> to_nearest(const Matrix& weights, uint32_t bits, bool grouped) {
  std::vector<QuantizedRow> rows;
  for (size_t r = 0; r < weights.rows(); ++r) {
    rows.push_back(quantize_row(weights.row(r), bits, grouped));
  }
  return rows;
}

void expect_equal(const std::vector<QuantizedRow>& a, const std::vector<QuantizedRow>& b) {
  ASSERT_EQ(a.size(), b.size());
  for (size_t r = 0; r < a.size(); ++r) {
    EXPECT_EQ(a[r].q, b[r].q) << r;
    EXPECT_EQ(a[r].multipliers, b[r].multipliers) << r;
    EXPECT_EQ(a[r].scale, b[r].scale) << r;
    EXPECT_EQ(a[r].weight_sum, b[r].weight_sum) << r;
  }
}

TEST(Gptq, RoundsAsThePapersAlgorithmDoes) {
  std::ifstream file(FLEXLLM_QUANTIZER_GOLDEN "/gptq.json");
  const auto cases = nlohmann::json::parse(file);
  ASSERT_EQ(cases.size(), 5u);
  Workers workers(1);
  for (const auto& given : cases) {
    const auto integers = given["integers"].get<std::vector<std::vector<int>>>();
    const auto raw = given["weights_x4096"].get<std::vector<std::vector<float>>>();
    const auto raw_inputs = given["inputs"].get<std::vector<std::vector<float>>>();
    Matrix weights(raw.size(), raw[0].size());
    for (size_t r = 0; r < raw.size(); ++r) {
      for (size_t i = 0; i < raw[r].size(); ++i) weights(r, i) = raw[r][i] / 4096;
    }
    Matrix hessian(weights.cols(), weights.cols());
    for (const std::vector<float>& x : raw_inputs) {
      for (size_t i = 0; i < x.size(); ++i) {
        for (size_t j = 0; j < x.size(); ++j) hessian(i, j) += x[i] * x[j];  // exact
      }
    }
    // Where blocks are cut only changes how sums round.
    for (const uint32_t block : {1u, 7u, 128u}) {
      GptqOptions options;
      options.bits = given["bits"];
      options.grouped = given["grouped"];
      options.block = block;
      if (given["order"] == "natural") options.order = GptqOptions::Order::natural;
      const std::vector<QuantizedRow> rows = gptq(weights, hessian, options, workers);
      ASSERT_EQ(rows.size(), integers.size());
      for (size_t r = 0; r < rows.size(); ++r) {
        EXPECT_EQ(std::vector<int>(rows[r].q.begin(), rows[r].q.end()), integers[r]);
        EXPECT_FLOAT_EQ(rows[r].scale, given["scales"][r].get<float>());
        if (options.grouped) {
          EXPECT_EQ(rows[r].multipliers, given["multipliers"][r].get<std::vector<uint8_t>>());
        }
      }
    }
  }
}

TEST(Gptq, ChangesOutputsLessThanRoundingToNearest) {
  Workers workers(1);
  for (uint32_t seed = 0; seed < 12; ++seed) {
    const size_t inputs = 40 + 23 * seed;
    const Matrix weights = random_weights(seed, 20, inputs);
    // Every other problem has fewer tokens than inputs.
    const Matrix hessian = random_hessian(seed, inputs, seed % 2 == 0 ? 400 : 30, workers);
    for (const uint32_t bits : {4u, 8u}) {
      for (const bool grouped : {false, true}) {
        const double nearest =
            output_error(weights, to_nearest(weights, bits, grouped), hessian, workers);
        for (const auto order : {GptqOptions::Order::natural, GptqOptions::Order::descending}) {
          const GptqOptions options{.bits = bits, .grouped = grouped, .order = order};
          const double once =
              output_error(weights, gptq(weights, hessian, options, workers), hessian, workers);
          EXPECT_LT(once, nearest) << seed;
        }
      }
    }
  }
}

TEST(Gptq, WithTheIdentityItRoundsToNearest) {
  Workers workers(1);
  const Matrix weights = random_weights(3, 70, 150);
  for (const float unit : {1.0f, 3e-5f, 2e7f, 0.0f}) {
    Matrix hessian(150, 150);
    for (size_t i = 0; i < 150; ++i) hessian(i, i) = unit;
    for (const bool grouped : {false, true}) {
      for (const uint32_t bits : {4u, 8u}) {
        const GptqOptions options{.bits = bits, .grouped = grouped};
        expect_equal(gptq(weights, hessian, options, workers), to_nearest(weights, bits, grouped));
      }
    }
  }
}

// Inputs in another order are the same problem: the most active first is the same sequence.
TEST(Gptq, DescendingOrderDoesNotDependOnWhereInputsStand) {
  Workers workers(1);
  const size_t inputs = 60;
  const Matrix weights = random_weights(4, 8, inputs);
  const Matrix hessian = random_hessian(4, inputs, 200, workers);
  std::vector<size_t> from(inputs);
  for (size_t i = 0; i < inputs; ++i) from[i] = (i * 7 + 3) % inputs;  // 7 and 60: no common factor
  Matrix moved(8, inputs);
  Matrix moved_hessian(inputs, inputs);
  for (size_t i = 0; i < inputs; ++i) {
    for (size_t r = 0; r < 8; ++r) moved(r, i) = weights(r, from[i]);
    for (size_t j = 0; j < inputs; ++j) moved_hessian(i, j) = hessian(from[i], from[j]);
  }
  const auto rows = gptq(weights, hessian, {}, workers);
  const auto moved_rows = gptq(moved, moved_hessian, {}, workers);
  for (size_t r = 0; r < rows.size(); ++r) {
    for (size_t i = 0; i < inputs; ++i) EXPECT_EQ(moved_rows[r].q[i], rows[r].q[from[i]]);
  }
}

TEST(Gptq, GivesTheSameBitsOnAnyNumberOfThreads) {
  Workers one(1);
  Workers three(3);
  const Matrix weights = random_weights(5, 300, 260);
  const Matrix hessian = random_hessian(5, 260, 500, one);
  for (const bool grouped : {false, true}) {
    const GptqOptions options{.grouped = grouped};
    expect_equal(gptq(weights, hessian, options, one), gptq(weights, hessian, options, three));
  }
}

TEST(Gptq, RaisesTheDampingOfAHessianThatIsNotPositive) {
  Workers workers(1);
  const Matrix weights = random_weights(6, 4, 30);
  Matrix hessian = random_hessian(6, 30, 100, workers);
  for (size_t i = 0; i < 30; ++i) hessian(i, i) *= 0.5f;  // what no product of inputs gives
  const auto rows = gptq(weights, hessian, {}, workers);
  uint32_t raised = 0;
  for (const double damping : {0.1, 1.0, 10.0, 100.0}) {
    const auto with_more = gptq(weights, hessian, {.damping = damping}, workers);
    raised += rows[0].q == with_more[0].q && rows[3].q == with_more[3].q ? 1 : 0;
  }
  EXPECT_GT(raised, 0u);
}

TEST(Gptq, RefusesWhatMakesNoSense) {
  Workers workers(1);
  const Matrix weights = random_weights(7, 4, 30);
  Matrix hessian = random_hessian(7, 30, 100, workers);
  EXPECT_THROW(gptq(weights, Matrix(29, 29), {}, workers), std::invalid_argument);
  EXPECT_THROW(gptq(weights, hessian, {.block = 0}, workers), std::invalid_argument);
  EXPECT_THROW(gptq(weights, hessian, {.damping = 0}, workers), std::invalid_argument);
  hessian(3, 2) = std::numeric_limits<float>::quiet_NaN();
  EXPECT_THROW(gptq(weights, hessian, {}, workers), std::domain_error);
  hessian(3, 2) = 0;
  hessian(3, 3) = -1;
  EXPECT_THROW(gptq(weights, hessian, {}, workers), std::domain_error);
}

TEST(QuantizeRow, LeavesOutInputsThatDoNotCount) {
  std::vector<float> row(64, 0.0f);
  for (size_t i = 0; i < row.size(); ++i) row[i] = 0.01f * static_cast<float>(i % 7);
  row[5] = 0.11f;
  std::vector<float> importance(64, 1.0f);
  importance[5] = 0;
  EXPECT_LT(quantize_row(row, 4, false, importance).scale, quantize_row(row, 4, false).scale);
}

}  // namespace
}  // namespace flexllm::quantizer
