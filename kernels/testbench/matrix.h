// A matrix as numbers, its tiles as docs/weight-layout.md lays them out, quantised rows, and their
// product by plain loops (docs/numerics.md, section 4). C++14.
#pragma once

#include "kernels/testbench/testbench.h"

namespace flexllm {
namespace kernels {

struct Matrix {
  Precision precision;
  uint32_t inputs;
  uint32_t outputs;
  std::vector<std::vector<int32_t>> w;
  std::vector<std::vector<uint32_t>> multiplier;
  Floats scale, weight_sum, bias;

  TileLayout layout() const { return TileLayout{inputs, precision}; }
};

inline Matrix random_matrix(std::mt19937& random, uint32_t outputs, uint32_t inputs,
                            Precision precision) {
  Matrix m{precision, inputs, outputs, {}, {}, {}, {}, {}};
  const int32_t offset = precision.weight_offset();
  for (uint32_t o = 0; o < outputs; ++o) {
    std::vector<int32_t> row(inputs);
    for (int32_t& w : row) {
      w = static_cast<int32_t>(random() % static_cast<uint32_t>(2 * offset)) - offset;
    }
    if (o % 3 == 0) row.assign(inputs, -offset);  // the extremes
    if (o % 3 == 1) row.assign(inputs, offset - 1);
    m.w.push_back(row);
    std::vector<uint32_t> multipliers(divide_up(inputs, kGroupInputs), 1);
    for (uint32_t& g : multipliers) {
      if (precision.grouped) g = 1 + static_cast<uint32_t>(random() % kMaxMultiplier);
    }
    m.multiplier.push_back(multipliers);
  }
  m.scale = random_row(random, outputs);
  m.weight_sum = random_row(random, outputs);
  m.bias = random_row(random, outputs);
  return m;
}

// Word `w` of a tile.
inline Word tile_word(const Matrix& m, uint32_t tile, uint32_t w) {
  const TileLayout layout = m.layout();
  Word word = zero_word();
  const auto output = [&](uint32_t row) { return tile * kTileRows + row; };
  if (w < layout.multipliers()) {
    const Floats& part = w < 2 ? m.scale : w < 4 ? m.weight_sum : m.bias;
    for (uint32_t i = 0; i < kFloatsPerWord; ++i) {
      const uint32_t o = output(w % 2 * kFloatsPerWord + i);
      set_float(word, i, o < m.outputs ? part[o] : 0.0f);
    }
    return word;
  }
  if (w < layout.planes()) {
    for (uint32_t i = 0; i < kBytesPerWord; ++i) {
      const uint32_t group = 2 * (w - layout.multipliers()) + i / kTileRows;
      const uint32_t o = output(i % kTileRows);
      if (group < layout.groups()) set_byte(word, i, o < m.outputs ? m.multiplier[o][group] : 1);
    }
    return word;
  }
  const uint32_t plane = (w - layout.planes()) / layout.plane_words();
  const uint32_t k = (w - layout.planes()) % layout.plane_words();
  const auto nibble = [&](uint32_t o, uint32_t i) {
    const int32_t value = o < m.outputs ? m.w[o][i] : 0;
    return (static_cast<uint32_t>(value + m.precision.weight_offset()) >> (4 * plane)) & 15u;
  };
  for (uint32_t byte = 0; byte < kBytesPerWord; ++byte) {
    const uint32_t i = kInputsPerWord * k + byte % kInputsPerWord;
    const uint32_t row = byte / kInputsPerWord;
    set_byte(word, byte, nibble(output(row), i) | (nibble(output(row + 16), i) << 4));
  }
  return word;
}

// The matrix in the arenas, from word `at` of each on.
inline std::vector<std::vector<Word>> arenas_of(const Matrix& m, uint32_t at, uint32_t streams) {
  const TileLayout layout = m.layout();
  const uint32_t words = at + matrix_words(m.outputs, layout, streams);
  std::vector<std::vector<Word>> arenas(streams, std::vector<Word>(words, zero_word()));
  for (uint32_t t = 0; t < row_tiles(m.outputs); ++t) {
    for (uint32_t w = 0; w < layout.words(); ++w) {
      arenas[t % streams][at + t / streams * layout.words() + w] = tile_word(m, t, w);
    }
  }
  return arenas;
}

// Quantised rows of numbers and their scales.
struct QuantizedRows {
  std::vector<std::vector<uint32_t>> q;
  std::vector<AsymmetricScale> scale;
};

// Extremes in two of them.
inline QuantizedRows random_quantized(std::mt19937& random, uint32_t rows, uint32_t inputs,
                                      uint32_t levels) {
  QuantizedRows x;
  x.q.assign(rows, std::vector<uint32_t>(inputs));
  for (uint32_t r = 0; r < rows; ++r) {
    for (uint32_t& value : x.q[r]) value = static_cast<uint32_t>(random() % (levels + 1));
    if (r == 1) x.q[r].assign(inputs, levels);
    if (r == 2) x.q[r].assign(inputs, 0);
    const Floats numbers = random_row(random, 2);
    x.scale.push_back(AsymmetricScale{abs_of(numbers[0]) + 0.01f, 0.0f, numbers[1]});
  }
  return x;
}

// Rows as quantize_rows sends them: bytes, 64 to a word, zero behind the last.
inline void send_quantized(const QuantizedRows& x, Stream<Word>& out) {
  for (const std::vector<uint32_t>& row : x.q) {
    for (size_t begin = 0; begin < row.size(); begin += kBytesPerWord) {
      Word word = zero_word();
      for (uint32_t i = 0; i < kBytesPerWord && begin + i < row.size(); ++i) {
        set_byte(word, i, row[begin + i]);
      }
      out.write(word);
    }
  }
}

// Activation word `w` of the block that begins at row `block`, and the sums of q of a group.
inline Word activation_word(const QuantizedRows& x, uint32_t block, uint32_t w) {
  Word word = zero_word();
  for (uint32_t byte = 0; byte < kBytesPerWord; ++byte) {
    const uint32_t row = block + byte / kInputsPerWord;
    if (row < x.q.size())
      set_byte(word, byte, x.q[row][w * kInputsPerWord + byte % kInputsPerWord]);
  }
  return word;
}
inline Word group_word(const QuantizedRows& x, uint32_t block, uint32_t group) {
  Word word = zero_word();
  for (uint32_t lane = 0; lane < kBlockRows && block + lane < x.q.size(); ++lane) {
    const std::vector<uint32_t>& row = x.q[block + lane];
    uint32_t sum = 0;
    for (size_t i = group * kGroupInputs; i < (group + 1) * kGroupInputs && i < row.size(); ++i) {
      sum += row[i];
    }
    set_lane(word, lane, sum);
  }
  return word;
}

// The integer of an output, and the float that comes of it; rows of padding have zeros.
inline int64_t exact_sum(const Matrix& m, const std::vector<uint32_t>& q, uint32_t output) {
  int64_t sum = 0;
  for (uint32_t k = 0; output < m.outputs && k < m.inputs; ++k) {
    sum += int64_t{m.multiplier[output][k / kGroupInputs]} * q[k] * m.w[output][k];
  }
  return sum;
}
inline float reference_linear(const Matrix& m, int64_t sum, const AsymmetricScale& s,
                              uint32_t output) {
  if (output >= m.outputs) return 0.0f;
  float y = static_cast<float>(sum) * (s.scale * m.scale[output]);
  y = y + s.zero * m.weight_sum[output];
  return m.precision.bias ? y + m.bias[output] : y;
}

inline Stage stage_of(const Matrix& m, uint32_t rows, uint32_t weights) {
  Stage stage = {};
  stage.kind = kGateUp;
  stage.rows = rows;
  stage.inputs = m.inputs;
  stage.outputs = m.outputs;
  stage.tiles = row_tiles(m.outputs);
  stage.weights = weights;
  stage.precision = m.precision.encode();
  return stage;
}

// Precision number 0..15: every combination.
inline Precision precision_number(uint32_t bits) {
  return Precision{1 + bits % 2, 1 + bits / 2 % 2, bits / 4 % 2 == 1, bits / 8 == 1};
}

}  // namespace kernels
}  // namespace flexllm
