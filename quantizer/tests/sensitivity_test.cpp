// Sensitivities: held to models that are rounded as asked and compared one at a time.
#include "quantizer/sensitivity/sensitivity.h"

#include <gtest/gtest.h>

#include <cmath>
#include <random>
#include <stdexcept>
#include <utility>
#include <vector>

#include "quantizer/rounding/gptq_rounder.h"
#include "quantizer/tests/memory_checkpoint.h"

namespace flexllm::quantizer {
namespace {

Reference::Windows text(uint32_t vocab) {
  std::mt19937 random(5);
  Reference::Windows windows;
  for (const size_t size : {30, 7, 20}) {
    auto& window = windows.emplace_back();
    for (size_t i = 0; i < size; ++i) window.push_back(static_cast<uint32_t>(random() % vocab));
  }
  return windows;
}

class Sensitive : public ::testing::Test {
 protected:
  explicit Sensitive(formats::ModelConfig config = testing::tiny_config())
      : checkpoint_(std::move(config)) {}

  RoundedModel round(const Scheme& low, Workers& workers) {
    NearestRounder one, other;
    return {checkpoint_, {low, high_, one, other, {}}, workers};
  }

  // Log-probabilities of every row, by a plain softmax.
  std::vector<std::vector<double>> log_probabilities(const Matrix& logits) {
    std::vector<std::vector<double>> all;
    for (size_t r = 0; r < logits.rows(); ++r) {
      double sum = 0;
      for (const float z : logits.row(r)) sum += std::exp(double{z});
      auto& row = all.emplace_back();
      for (const float z : logits.row(r)) row.push_back(z - std::log(sum));
    }
    return all;
  }

  // KL from the float model of a model whose matrices have the precisions of `scheme`.
  double divergence(const Scheme& scheme, const Reference::Windows& windows) {
    const std::vector<std::span<const uint32_t>> views(windows.begin(), windows.end());
    const uint32_t vocab = checkpoint_.config().vocab;
    const FloatModel plain(checkpoint_, {}, workers_);
    const auto p = log_probabilities(plain.logits(plain.head_inputs(plain.run(views)), 0, vocab));
    const FloatModel model(checkpoint_, float_options(scheme, checkpoint_.config().layers),
                           workers_);
    NearestRounder nearest;
    TokenBatch batch = model.embed(views);
    for (uint32_t layer = 0; layer < checkpoint_.config().layers; ++layer) {
      LayerWeights weights = model.load_layer(layer);
      const LayerRows rows = nearest.round_layer(layer, weights, scheme, workers_);
      for (size_t kind = 0; kind < rows.size(); ++kind) {
        put_rows(static_cast<MatrixKind>(kind), rows[kind], weights);
      }
      model.run_layer(batch, layer, weights);
    }
    Matrix head(vocab, checkpoint_.config().hidden);
    checkpoint_.read_rows_f32("lm_head.weight", 0, vocab, head.elements());
    const auto rows = nearest.round_lm_head(head, scheme, workers_);
    const Matrix inputs = model.head_inputs(batch);
    Matrix logits(inputs.rows(), vocab);
    for (uint32_t token = 0; token < vocab; ++token) {
      const std::vector<float> weights = dequantize_row(rows[token]);
      for (size_t r = 0; r < inputs.rows(); ++r) {
        double sum = 0;
        for (size_t i = 0; i < weights.size(); ++i) sum += double{weights[i]} * inputs(r, i);
        logits(r, token) = static_cast<float>(sum);
      }
    }
    const auto q = log_probabilities(logits);
    double sum = 0;
    for (size_t r = 0; r < p.size(); ++r) {
      for (size_t t = 0; t < vocab; ++t) sum += std::exp(p[r][t]) * (p[r][t] - q[r][t]);
    }
    return sum / static_cast<double>(p.size());
  }

  testing::MemoryCheckpoint checkpoint_;
  const MatrixPrecision high_{8, 8, true};
  Workers workers_{1};
};

// More than are looked at together.
class SensitiveOfManyWords : public Sensitive {
 protected:
  static formats::ModelConfig config() {
    formats::ModelConfig config = testing::tiny_config();
    config.vocab = 9000;
    return config;
  }
  SensitiveOfManyWords() : Sensitive(config()) {}
};

TEST_F(Sensitive, EachIsTheDivergenceOfThatOneMatrix) {
  const Scheme low = Scheme::parse("w4g64a4kv8-lm8-r4");
  const Reference::Windows windows = text(checkpoint_.config().vocab);
  const RoundedModel rounded = round(low, workers_);
  const Reference reference(checkpoint_, windows, workers_);
  double last = 0;
  const Sensitivities found = measure_sensitivities(rounded, reference, [&](double share) {
    EXPECT_GE(share, last);
    EXPECT_LE(share, 1);
    last = share;
  });
  EXPECT_DOUBLE_EQ(last, 1);

  Scheme high = low;
  high.linears = high_;
  EXPECT_NEAR(found.high, divergence(high, windows), 1e-5);
  ASSERT_EQ(found.matrices.size(), 12u);
  double largest = 0;
  for (const Sensitivity& sensitivity : found.matrices) {
    Scheme one = high;
    one.exceptions[sensitivity.id] = low.linears;
    EXPECT_NEAR(sensitivity.divergence, divergence(one, windows), 1e-5)
        << sensitivity.id.layer << " " << name_of(sensitivity.id.kind);
    EXPECT_GT(sensitivity.divergence, 2 * found.high);
    largest = std::max(largest, sensitivity.divergence);
  }
  EXPECT_GT(largest, 0.005);  // far above the tolerance
}

TEST_F(SensitiveOfManyWords, AChoiceIsMeasuredAsTheSchemeOfThatName) {
  const Reference::Windows windows = text(checkpoint_.config().vocab);
  const RoundedModel rounded = round(Scheme::parse("w4g64a8kv8-lm4"), workers_);
  const Reference reference(checkpoint_, windows, workers_);
  const Raised raised = {{0, MatrixKind::o}, {1, MatrixKind::down}, {2, MatrixKind::qkv}};
  const Scheme scheme = rounded.scheme(raised);
  EXPECT_EQ(scheme.name(), "w4g64a8kv8-lm4:2.qkv=w8g64a8,0.o=w8g64a8,1.down=w8g64a8");
  const Distance distance = measure(rounded, raised, reference);
  EXPECT_NEAR(distance.divergence, divergence(scheme, windows), 1e-5);
  EXPECT_GT(distance.divergence_error, 0);
  EXPECT_GT(distance.loss_error, 0);
}

TEST_F(Sensitive, ExceptionsOfTheSchemeStayAsTheyAre) {
  const Scheme low = Scheme::parse("w4a8kv8-lm8:1.o=w8a8,2.down=w4a4");
  const std::vector<MatrixId> ids = raisable(low, 3);
  EXPECT_EQ(ids.size(), 10u);
  for (const MatrixId& id : ids) EXPECT_EQ(low.of(id), low.linears);
  const Scheme raised = raise(low, Raised(ids.begin(), ids.end()), high_);
  EXPECT_EQ(raised.of({1, MatrixKind::o}).name(), "w8a8");
  EXPECT_EQ(raised.of({2, MatrixKind::down}).name(), "w4a4");
  EXPECT_EQ(raised.of({2, MatrixKind::qkv}), high_);
}

TEST_F(Sensitive, AModelOfExceptionsIsMeasuredAsItIs) {
  const Reference::Windows windows = text(checkpoint_.config().vocab);
  const Scheme scheme =
      Scheme::parse("w4a8kv8-lm8:0-2.qkv=w4a4,0-2.o=w4a4,0-2.gate_up=w4a4,0-2.down=w4a4");
  const Sensitivities found =
      measure_sensitivities(round(scheme, workers_), Reference(checkpoint_, windows, workers_));
  EXPECT_TRUE(found.matrices.empty());
  EXPECT_NEAR(found.high, divergence(scheme, windows), 1e-5);
}

TEST_F(Sensitive, GivesTheSameBitsOnAnyNumberOfThreads) {
  const Scheme low = Scheme::parse("w4a8kv8-lm8-r4");
  Workers three(3);
  const auto measured = [&](Workers& workers) {
    const RoundedModel rounded = round(low, workers);
    const Reference reference(checkpoint_, text(checkpoint_.config().vocab), workers);
    std::vector<double> all;
    for (const Sensitivity& sensitivity : measure_sensitivities(rounded, reference).matrices) {
      all.push_back(sensitivity.divergence);
    }
    all.push_back(measure(rounded, {{0, MatrixKind::qkv}}, reference).loss);
    return all;
  };
  EXPECT_EQ(measured(workers_), measured(three));
}

TEST_F(Sensitive, RefusesTextThatPredictsNothing) {
  EXPECT_THROW(Reference(checkpoint_, {{1, 2}, {3}}, workers_), std::invalid_argument);
  EXPECT_THROW(Reference(checkpoint_, {{1, 70}}, workers_), std::invalid_argument);
  EXPECT_THROW(Reference(checkpoint_, {{1, 2}, {}}, workers_), std::invalid_argument);
}

}  // namespace
}  // namespace flexllm::quantizer
