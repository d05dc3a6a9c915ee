// Choosing matrices for a budget: order, prediction, search.
#include "quantizer/sensitivity/choice.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <vector>

namespace flexllm::quantizer {
namespace {

MatrixId layer(uint32_t number) { return {number, MatrixKind::o}; }

std::vector<uint32_t> layers_of(const std::vector<Candidate>& candidates) {
  std::vector<uint32_t> layers;
  for (const Candidate& candidate : candidates) layers.push_back(candidate.id.layer);
  return layers;
}

TEST(Choice, OrdersByGainForCost) {
  std::vector<Candidate> all = {{layer(0), 1, 2},  {layer(1), 0, 0}, {layer(2), 3, 3},
                                {layer(3), 1, 0},  {layer(4), 4, 4}, {layer(5), 2, 0},
                                {layer(6), -1, 1}, {layer(7), 0, 9}};
  order_by_worth(all);
  EXPECT_EQ(layers_of(all), (std::vector<uint32_t>{5, 3, 2, 4, 0, 1, 7, 6}));
}

TEST(Choice, PredictsThatGainsAddUp) {
  const std::vector<Candidate> ordered = {{layer(0), 4, 1}, {layer(1), 2, 1}, {layer(2), -3, 1}};
  EXPECT_EQ(predicted(ordered, 0.5), (std::vector<double>{6.5, 2.5, 0.5, 0.5}));
}

// Prediction and truth for 0 .. 100 raised: the truth is `factor` times what was predicted.
std::vector<double> falling() {
  std::vector<double> all;
  for (int n = 0; n <= 100; ++n) all.push_back(0.01 + 0.2 * std::pow(0.95, n));
  return all;
}

TEST(Choice, FindsTheFewestThatDo) {
  const std::vector<double> prediction = falling();
  for (const double factor : {0.7, 1.0, 1.6}) {
    for (const double budget : {0.02, 0.03, 0.1, 1.0}) {
      const auto truth = [&](size_t n) { return factor * prediction[n]; };
      size_t fewest = 0;
      while (truth(fewest) > budget) ++fewest;
      const Search search = fewest_raised(prediction, budget, 8, truth);
      EXPECT_TRUE(search.met);
      EXPECT_EQ(search.found.raised, fewest) << factor << " " << budget;
      EXPECT_DOUBLE_EQ(search.found.divergence, truth(fewest));
      EXPECT_LE(search.probes.size(), 4u);  // a factor is learnt from one measurement
    }
  }
}

TEST(Choice, MeasuresHowCloseItComesWhenTheBudgetCannotBeMet) {
  const std::vector<double> prediction = falling();
  const Search search =
      fewest_raised(prediction, 0.001, 8, [&](size_t n) { return prediction[n]; });
  EXPECT_FALSE(search.met);
  EXPECT_EQ(search.found.raised, 100u);
  EXPECT_DOUBLE_EQ(search.found.divergence, prediction[100]);
}

TEST(Choice, StopsMeasuringAndTakesWhatDoes) {
  const std::vector<double> prediction = falling();
  // Nothing like the prediction: flat up to 90.
  const auto truth = [](size_t n) { return n < 90 ? 1.0 : 0.0; };
  const Search search = fewest_raised(prediction, 0.03, 3, truth);
  EXPECT_TRUE(search.met);
  EXPECT_GE(search.found.raised, 90u);
  EXPECT_LE(search.probes.size(), 4u);
}

TEST(Choice, RaisesWhatTheTimeAllows) {
  const std::vector<Candidate> ordered = {
      {layer(0), 4, 3}, {layer(1), 3, 5}, {layer(2), 2, 2}, {layer(3), 0, 0}};
  const auto time_of = [&](std::span<const MatrixId> raised) {
    double time = 10;
    for (const MatrixId& id : raised) time += ordered[id.layer].cost;
    return time;
  };
  EXPECT_EQ(raise_within(ordered, 16, time_of), (std::vector<MatrixId>{layer(0), layer(2)}));
  EXPECT_EQ(raise_within(ordered, 9, time_of), std::vector<MatrixId>{});
  EXPECT_EQ(raise_within(ordered, 100, time_of).size(), 3u);  // the last gains nothing
}

}  // namespace
}  // namespace flexllm::quantizer
