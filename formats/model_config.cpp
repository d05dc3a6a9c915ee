#include "formats/model_config.h"

#include <cmath>
#include <numbers>

namespace flexllm::formats {
namespace {

double scale_llama3(const RopeConfig& rope, double frequency) {
  const double turns = rope.original_context_length * frequency / (2 * std::numbers::pi);
  if (turns > rope.high_freq_factor) return frequency;
  if (turns < rope.low_freq_factor) return frequency / rope.factor;
  const double kept =
      (turns - rope.low_freq_factor) / (rope.high_freq_factor - rope.low_freq_factor);
  return (1 - kept) * frequency / rope.factor + kept * frequency;
}

}  // namespace

std::vector<double> rope_frequencies(const RopeConfig& rope, uint32_t head_dim) {
  std::vector<double> frequencies(head_dim / 2);
  for (size_t i = 0; i < frequencies.size(); ++i) {
    double frequency = std::pow(rope.theta, -2.0 * static_cast<double>(i) / head_dim);
    if (rope.scaling == RopeConfig::Scaling::linear) frequency /= rope.factor;
    if (rope.scaling == RopeConfig::Scaling::llama3) frequency = scale_llama3(rope, frequency);
    if (!rope.frequency_factors.empty()) frequency /= rope.frequency_factors.at(i);
    frequencies[i] = frequency;
  }
  return frequencies;
}

}  // namespace flexllm::formats
