#include "quantizer/rounding/weights.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace flexllm::quantizer {
namespace {

struct Range {
  double lowest;
  double highest;
};

Range range_of(uint32_t bits) { return bits == 4 ? Range{-8, 7} : Range{-128, 127}; }

// To the nearest integer, halves to even, for magnitudes below 2^51: there the sum has no bits
// behind the point. Unlike std::nearbyint, this becomes vector code on any processor.
double nearest(double value) {
  constexpr double kShift = 0x1.8p52;
  return (value + kShift) - kShift;
}

double round_to(double w, double step, Range range) {
  return nearest(std::clamp(w / step, range.lowest, range.highest));
}

// The weighted squared error of `step`, or, once it is certain to be above `least`, some value
// above that.
template <bool kWeighted>
double squared_error(std::span<const float> weights, std::span<const float> importance, double step,
                     Range range, double least) {
  constexpr size_t kPiece = 16;
  double sum = 0;
  for (size_t begin = 0; begin < weights.size() && sum <= least; begin += kPiece) {
    double errors[kPiece] = {};
    const size_t count = std::min(kPiece, weights.size() - begin);
    for (size_t i = 0; i < count; ++i) {
      const double w = weights[begin + i];
      const double e = round_to(w, step, range) * step - w;
      errors[i] = kWeighted ? e * e * importance[begin + i] : e * e;
    }
    for (const double error : errors) sum += error;
  }
  return sum;
}

float largest_magnitude(std::span<const float> weights) {
  float largest = 0;
  for (const float w : weights) largest = std::max(largest, std::fabs(w));
  return largest;
}

// The step with the least squared error. At 8 bits clipping never pays, so the range is covered.
double best_step(std::span<const float> weights, std::span<const float> importance, uint32_t bits) {
  const Range range = range_of(bits);
  const double covering = largest_magnitude(weights) / range.highest;
  if (bits == 8 || covering == 0) return covering;
  const auto error_of = [&](double step, double least) {
    return importance.empty() ? squared_error<false>(weights, importance, step, range, least)
                              : squared_error<true>(weights, importance, step, range, least);
  };
  double best = covering;
  double least = error_of(covering, std::numeric_limits<double>::infinity());
  constexpr int kSteps = 40;
  for (int i = 1; i <= kSteps; ++i) {
    const double step = covering * (1.0 - 0.5 * i / kSteps);
    const double error = error_of(step, least);
    if (error < least) {
      least = error;
      best = step;
    }
  }
  return best;
}

}  // namespace

QuantizedRow choose_scales(std::span<const float> weights, uint32_t bits, bool grouped,
                           std::span<const float> importance) {
  QuantizedRow row;
  if (!grouped) {
    row.scale = static_cast<float>(best_step(weights, importance, bits));
    return row;
  }
  std::vector<double> steps;
  for (size_t begin = 0; begin < weights.size(); begin += kernels::kGroupInputs) {
    const size_t count = std::min<size_t>(kernels::kGroupInputs, weights.size() - begin);
    const auto part = importance.empty() ? importance : importance.subspan(begin, count);
    steps.push_back(best_step(weights.subspan(begin, count), part, bits));
  }
  const double widest = *std::max_element(steps.begin(), steps.end());
  row.scale = static_cast<float>(widest / kernels::kMaxMultiplier);
  for (const double step : steps) {
    const double wanted = row.scale > 0 ? std::nearbyint(step / row.scale) : 1;
    row.multipliers.push_back(
        static_cast<uint8_t>(std::clamp<double>(wanted, 1, kernels::kMaxMultiplier)));
  }
  return row;
}

int8_t round_weight(double w, double step, uint32_t bits) {
  return step > 0 ? static_cast<int8_t>(round_to(w, step, range_of(bits))) : int8_t{0};
}

void set_weight_sum(QuantizedRow& row) {
  int64_t sum = 0;
  for (size_t i = 0; i < row.q.size(); ++i) {
    const int64_t m = row.multipliers.empty() ? 1 : row.multipliers[i / kernels::kGroupInputs];
    sum += m * row.q[i];
  }
  row.weight_sum = static_cast<float>(double{row.scale} * static_cast<double>(sum));
}

QuantizedRow quantize_row(std::span<const float> weights, uint32_t bits, bool grouped,
                          std::span<const float> importance) {
  QuantizedRow row = choose_scales(weights, bits, grouped, importance);
  row.q.resize(weights.size());
  for (size_t i = 0; i < weights.size(); ++i) {
    row.q[i] = round_weight(weights[i], row.step(i), bits);
  }
  set_weight_sum(row);
  return row;
}

std::vector<float> dequantize_row(const QuantizedRow& row) {
  std::vector<float> weights(row.q.size());
  for (size_t i = 0; i < weights.size(); ++i) {
    const int m = row.multipliers.empty() ? 1 : row.multipliers[i / kernels::kGroupInputs];
    weights[i] = row.scale * static_cast<float>(m * row.q[i]);
  }
  return weights;
}

}  // namespace flexllm::quantizer
