// Quantisers as plain loops (docs/numerics.md, section 3): what the modules of quantize.h and
// quantizers.h are compared with. C++14.
#pragma once

#include "kernels/modules/quantizers.h"
#include "kernels/testbench/testbench.h"

namespace flexllm {
namespace kernels {

// The scale that a vector of numbers shares, and its numbers, as the section says.
template <uint32_t Bits, bool IsSymmetric>
struct PlainScheme {
  static constexpr int low() { return IsSymmetric ? -(1 << (Bits - 1)) + 1 : 0; }
  static constexpr int high() { return IsSymmetric ? (1 << (Bits - 1)) - 1 : (1 << Bits) - 1; }

  // `clip` 256ths are cut off an asymmetric range, which `both_sides` makes as wide below 0 as
  // above.
  explicit PlainScheme(const Floats& vector, uint32_t clip = 0, bool both_sides = false) {
    const auto top = static_cast<float>(high());
    if (IsSymmetric) {
      float largest = 0.0f;
      for (const float x : vector) largest = max_of(abs_of(x), largest);
      scale = largest / top;
      inverse = scale > 0.0f ? 1.0f / scale : 0.0f;
      return;
    }
    float lowest = kInfinity;
    float highest = -kInfinity;
    for (const float x : vector) {
      if (x < lowest) lowest = x;
      if (x > highest) highest = x;
    }
    if (both_sides) {
      if (-lowest > highest) highest = -lowest;
      lowest = -highest;
    }
    lowest = lowest * (static_cast<float>(256 - clip) / 256.0f);
    highest = highest * (static_cast<float>(256 - clip) / 256.0f);
    zero = lowest + 0.0f;
    const float step = (highest - lowest) / top;
    scale = step > 0.0f ? step : 1.0f;
    inverse = 1.0f / scale;
  }
  int encode(float x) const {
    const float v = IsSymmetric ? x * inverse : (x - zero) * inverse;
    if (!(v > static_cast<float>(low()))) return low();
    if (v > static_cast<float>(high())) return high();
    return static_cast<int>(round_even(v));
  }
  float decode(int q) const {
    const float product = static_cast<float>(q) * scale;
    return IsSymmetric ? product : product + zero;
  }

  float scale = 0.0f;
  float inverse = 0.0f;
  float zero = 0.0f;
};

template <typename Plain>
void compare_scale(const Plain& expected, const AsymmetricScale& actual, uint32_t size,
                   Differences& differences) {
  differences.compare_bits("zero", size, 0, bits_of(expected.zero), bits_of(actual.zero));
  differences.compare_bits("scale", size, 0, bits_of(expected.scale), bits_of(actual.scale));
  differences.compare_bits("inverse", size, 0, bits_of(expected.inverse), bits_of(actual.inverse));
}

// Reads the numbers of a row and compares them, each by the scale that scale_of(i) has for it;
// zeros follow up to the end of the last word.
template <typename ScaleOf>
void compare_numbers(const Floats& row, const ScaleOf& scale_of, Stream<Word>& numbers,
                     Differences& differences) {
  const auto size = static_cast<uint32_t>(row.size());
  for (uint32_t begin = 0; begin < size; begin += kBytesPerWord) {
    const Word word = numbers.read();
    for (uint32_t byte = 0; byte < kBytesPerWord; ++byte) {
      const uint32_t i = begin + byte;
      const int q = i < size ? scale_of(i).encode(row[i]) : 0;
      differences.compare_bits("number", size, i, static_cast<uint32_t>(q) & 255u,
                               get_byte(word, byte));
    }
  }
}

// Sends the numbers of a row as quantisers do, and returns what they stand for.
template <typename ScaleOf>
Floats send_numbers(const Floats& row, const ScaleOf& scale_of, Stream<Word>& out) {
  Floats values;
  for (size_t begin = 0; begin < row.size(); begin += kBytesPerWord) {
    Word word = zero_word();
    for (uint32_t byte = 0; byte < kBytesPerWord && begin + byte < row.size(); ++byte) {
      const auto i = static_cast<uint32_t>(begin + byte);
      const int q = scale_of(i).encode(row[i]);
      set_byte(word, byte, static_cast<uint32_t>(q) & 255u);
      values.push_back(scale_of(i).decode(q));
    }
    out.write(word);
  }
  return values;
}

template <typename Plain>
AsymmetricScale module_scale(const Plain& plain) {
  AsymmetricScale scale;
  scale.scale = plain.scale;
  scale.inverse = plain.inverse;
  scale.zero = plain.zero;
  return scale;
}

// Rows of which the first, if there are several, is zero throughout.
inline std::vector<Floats> rows_to_quantize(std::mt19937& random, uint32_t rows, uint32_t size) {
  std::vector<Floats> x;
  for (uint32_t row = 0; row < rows; ++row) x.push_back(random_row(random, size));
  if (rows > 1) x[0].assign(size, 0.0f);
  return x;
}

// The number of the span that element `i` of a row belongs to, and the elements of all spans.
inline uint32_t span_number(const ScaleScope& scope, uint32_t row, uint32_t i) {
  return scope.tensor ? 0 : row * divide_up(scope.size, scope.span) + i / scope.span;
}
inline std::vector<Floats> spans_of(const ScaleScope& scope, const std::vector<Floats>& rows) {
  std::vector<Floats> spans(scope.scales());
  for (uint32_t row = 0; row < scope.rows; ++row) {
    for (uint32_t i = 0; i < scope.size; ++i) {
      spans[span_number(scope, row, i)].push_back(rows[row][i]);
    }
  }
  return spans;
}

inline std::vector<Floats> channels_of(const std::vector<Floats>& rows) {
  std::vector<Floats> channels(rows[0].size());
  for (const Floats& row : rows) {
    for (size_t i = 0; i < row.size(); ++i) channels[i].push_back(row[i]);
  }
  return channels;
}

}  // namespace kernels
}  // namespace flexllm
