#include "quantizer/float_model/rows.h"

#include <cstddef>

#include "kernels/contract/numerics.h"

namespace flexllm::quantizer {
namespace {

constexpr size_t kLanes = 16;  // partial extrema, so that a compiler can use vectors

// vsum of docs/numerics.md, section 1, over what `term` makes of the values.
template <typename Term>
float vector_sum(std::span<const float> x, Term term) {
  float partial[kernels::kPartialSums] = {};
  size_t i = 0;
  for (; i + kernels::kPartialSums <= x.size(); i += kernels::kPartialSums) {
    for (size_t j = 0; j < kernels::kPartialSums; ++j) partial[j] += term(x[i + j]);
  }
  for (size_t j = 0; i + j < x.size(); ++j) partial[j] += term(x[i + j]);
  return kernels::fold_partial_sums(partial);
}

template <typename Best>
float extremum(std::span<const float> x, float start, Best best) {
  float lanes[kLanes];
  for (float& lane : lanes) lane = start;
  size_t i = 0;
  for (; i + kLanes <= x.size(); i += kLanes) {
    for (size_t j = 0; j < kLanes; ++j) lanes[j] = best(x[i + j], lanes[j]);
  }
  for (size_t j = 0; i + j < x.size(); ++j) lanes[j] = best(x[i + j], lanes[j]);
  for (const float lane : lanes) start = best(lane, start);
  return start;
}

}  // namespace

void rms_norm(std::span<const float> x, std::span<const float> gain, float eps,
              std::span<float> out) {
  const float squares = vector_sum(x, [](float v) { return v * v; });
  const float mean = squares / static_cast<float>(x.size());
  const float r = kernels::reciprocal_sqrt(mean + eps);
  for (size_t i = 0; i < x.size(); ++i) out[i] = x[i] * r * gain[i];
}

void silu_times(std::span<float> gate, std::span<const float> up) {
  for (size_t i = 0; i < gate.size(); ++i) gate[i] = kernels::silu(gate[i]) * up[i];
}

void round_asymmetric(std::span<float> row, const kernels::ActivationGrid& grid) {
  const auto levels = static_cast<float>(grid.levels);
  const float low = extremum(row, kernels::kInfinity, kernels::min_of);
  const float high = extremum(row, -kernels::kInfinity, kernels::max_of);
  const kernels::AsymmetricScale s = kernels::asymmetric_scale(low, high, grid);
  for (float& x : row) {
    const uint32_t q = kernels::quantize_asymmetric(x, s, levels);
    x = static_cast<float>(static_cast<int32_t>(q)) * s.scale + s.zero;
  }
}

float round_symmetric(std::span<float> vector) {
  const auto larger = [](float x, float best) { return kernels::max_of(kernels::abs_of(x), best); };
  const kernels::SymmetricScale s = kernels::symmetric_scale(extremum(vector, 0, larger));
  for (float& x : vector) x = static_cast<float>(kernels::quantize_signed(x * s.inverse));
  return s.scale;
}

void rotate_head(std::span<float> head, std::span<const float> cosines,
                 std::span<const float> sines) {
  const size_t half = head.size() / 2;
  for (size_t i = 0; i < half; ++i) {
    const float a = head[i];
    const float b = head[i + half];
    head[i] = a * cosines[i] - b * sines[i];
    head[i + half] = b * cosines[i] + a * sines[i];
  }
}

float sum_of(std::span<const float> values) {
  return vector_sum(values, [](float v) { return v; });
}

double sum_of_exponentials(std::span<const float> values, float largest) {
  return vector_sum(values, [largest](float v) { return kernels::exp_nonpositive(v - largest); });
}

float largest_of(std::span<const float> values) {
  return extremum(values, -kernels::kInfinity, kernels::max_of);
}

}  // namespace flexllm::quantizer
