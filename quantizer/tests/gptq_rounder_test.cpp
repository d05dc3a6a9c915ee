// GPTQ through a whole model: better than rounding each row for itself, and resumable.
#include "quantizer/rounding/gptq_rounder.h"

#include <gtest/gtest.h>

#include <cmath>
#include <random>
#include <stdexcept>
#include <utility>
#include <vector>

#include "quantizer/tests/memory_checkpoint.h"

namespace flexllm::quantizer {
namespace {

formats::ModelConfig tiny() {
  formats::ModelConfig config;
  config.layers = 2;
  config.hidden = 64;
  config.ffn = 96;
  config.heads = 4;
  config.kv_heads = 2;
  config.head_dim = 16;
  config.vocab = 100;
  config.context_length = 64;
  config.tied_embeddings = true;
  return config;
}

GptqRounder::Windows random_windows(uint32_t seed, size_t count) {
  std::mt19937 random(seed);
  GptqRounder::Windows windows(count);
  for (auto& window : windows) {
    for (int i = 0; i < 40; ++i) window.push_back(static_cast<uint32_t>(random() % 100));
  }
  return windows;
}

class GptqRounding : public ::testing::Test {
 protected:
  GptqRounding() : checkpoint_(tiny()), scheme_(Scheme::parse("w4g64a8kv8-lm8-r4")) {}

  // Rounds the layers in order; the first `resumed` of them are given to `rounder` as `known`.
  std::vector<LayerRows> round_layers(Rounder& rounder, Workers& workers, uint32_t resumed = 0,
                                      const std::vector<LayerRows>& known = {}) {
    const FloatModel model(checkpoint_, float_options(scheme_, 2), workers);
    std::vector<LayerRows> rounded;
    for (uint32_t layer = 0; layer < 2; ++layer) {
      if (layer < resumed) {
        rounder.resume_layer(layer, model.load_layer(layer), known[layer], scheme_, workers);
        rounded.push_back(known[layer]);
      } else {
        rounded.push_back(rounder.round_layer(layer, model.load_layer(layer), scheme_, workers));
      }
    }
    return rounded;
  }

  // Mean squared distance of the last hidden states from those with the weights as they are.
  double distance(const std::vector<LayerRows>& rounded, const GptqRounder::Windows& windows,
                  Workers& workers) {
    const FloatModel model(checkpoint_, float_options(scheme_, 2), workers);
    const std::vector<std::span<const uint32_t>> views(windows.begin(), windows.end());
    const TokenBatch expected = model.run(views);
    TokenBatch batch = model.embed(views);
    for (uint32_t layer = 0; layer < 2; ++layer) {
      LayerWeights weights = model.load_layer(layer);
      for (size_t kind = 0; kind < rounded[layer].size(); ++kind) {
        put_rows(static_cast<MatrixKind>(kind), rounded[layer][kind], weights);
      }
      model.run_layer(batch, layer, weights);
    }
    double sum = 0;
    for (size_t i = 0; i < batch.residual.elements().size(); ++i) {
      sum += std::pow(double{batch.residual.elements()[i]} - expected.residual.elements()[i], 2);
    }
    return sum;
  }

  testing::MemoryCheckpoint checkpoint_;
  const Scheme scheme_;
  const GptqRounder::Windows text_ = random_windows(1, 12);
  Workers workers_{1};
};

void expect_equal(const std::vector<QuantizedRow>& a, const std::vector<QuantizedRow>& b) {
  ASSERT_EQ(a.size(), b.size());
  for (size_t r = 0; r < a.size(); ++r) {
    ASSERT_EQ(a[r].q, b[r].q) << "row " << r;
    ASSERT_EQ(a[r].scale, b[r].scale);
    ASSERT_EQ(a[r].multipliers, b[r].multipliers);
  }
}

void expect_equal(const std::vector<LayerRows>& a, const std::vector<LayerRows>& b) {
  ASSERT_EQ(a.size(), b.size());
  for (size_t layer = 0; layer < a.size(); ++layer) {
    for (size_t kind = 0; kind < a[layer].size(); ++kind) {
      expect_equal(a[layer][kind], b[layer][kind]);
    }
  }
}

TEST_F(GptqRounding, KeepsHiddenStatesOfOtherTextCloser) {
  NearestRounder nearest;
  GptqRounder gptq(checkpoint_, scheme_, {}, text_, workers_);
  const GptqRounder::Windows other = random_windows(2, 4);
  const double by_nearest = distance(round_layers(nearest, workers_), other, workers_);
  const double by_gptq = distance(round_layers(gptq, workers_), other, workers_);
  EXPECT_LT(by_gptq, 0.8 * by_nearest);
}

TEST_F(GptqRounding, GoesOnWhereAnEarlierRunStopped) {
  GptqRounder whole(checkpoint_, scheme_, {}, text_, workers_);
  const std::vector<LayerRows> all = round_layers(whole, workers_);
  const Matrix head(5, 64, std::vector<float>(5 * 64, 0.01f));
  const auto head_rows = whole.round_lm_head(head, scheme_, workers_);
  for (const uint32_t resumed : {1u, 2u}) {
    GptqRounder rest(checkpoint_, scheme_, {}, text_, workers_);
    EXPECT_EQ(rest.key(), whole.key());
    expect_equal(round_layers(rest, workers_, resumed, all), all);
    expect_equal(rest.round_lm_head(head, scheme_, workers_), head_rows);
  }
}

TEST_F(GptqRounding, GivesTheSameBitsOnAnyNumberOfThreads) {
  Workers three(3);
  GptqRounder alone(checkpoint_, scheme_, {}, text_, workers_);
  GptqRounder together(checkpoint_, scheme_, {}, text_, three);
  expect_equal(round_layers(alone, workers_), round_layers(together, three));
}

TEST_F(GptqRounding, ItsKeyNamesTextAndSettings) {
  const GptqRounder plain(checkpoint_, scheme_, {}, text_, workers_);
  const GptqRounder other_text(checkpoint_, scheme_, {}, random_windows(2, 12), workers_);
  const GptqRounder other_damping(checkpoint_, scheme_, {.damping = 0.02}, text_, workers_);
  EXPECT_NE(plain.key(), other_text.key());
  EXPECT_NE(plain.key(), other_damping.key());
}

TEST_F(GptqRounding, RefusesTextOfAnotherModelAndNone) {
  EXPECT_THROW(GptqRounder(checkpoint_, scheme_, {}, {}, workers_), std::invalid_argument);
  EXPECT_THROW(GptqRounder(checkpoint_, scheme_, {}, {{1, 100}}, workers_), std::invalid_argument);
}

TEST_F(GptqRounding, RefusesLayersOutOfOrderAndRowsOfAnotherModel) {
  GptqRounder gptq(checkpoint_, scheme_, {}, text_, workers_);
  const FloatModel model(checkpoint_, float_options(scheme_, 2), workers_);
  EXPECT_THROW(gptq.round_layer(1, model.load_layer(1), scheme_, workers_), std::logic_error);
  EXPECT_THROW(gptq.resume_layer(0, model.load_layer(0), {}, scheme_, workers_),
               std::invalid_argument);
}

}  // namespace
}  // namespace flexllm::quantizer
