#include "quantizer/rounding/rounder.h"

#include <algorithm>
#include <iterator>
#include <stdexcept>

namespace flexllm::quantizer {

std::vector<QuantizedRow> round_to_nearest(ConstView weights, const MatrixPrecision& precision,
                                           Workers& workers) {
  std::vector<QuantizedRow> rows(weights.rows);
  workers.run(weights.rows, [&](size_t r) {
    rows[r] = quantize_row(weights.row(r), precision.weight_bits, precision.grouped);
  });
  return rows;
}

LayerRows NearestRounder::round_layer(uint32_t layer, LayerWeights weights, const Scheme& scheme,
                                      Workers& workers) {
  LayerRows rows;
  for (size_t k = 0; k < rows.size(); ++k) {
    const auto kind = static_cast<MatrixKind>(k);
    for (const Matrix* part : parts_of(kind, weights)) {
      auto rounded = round_to_nearest(*part, scheme.of({layer, kind}), workers);
      rows[k].insert(rows[k].end(), std::make_move_iterator(rounded.begin()),
                     std::make_move_iterator(rounded.end()));
    }
  }
  return rows;
}

std::vector<QuantizedRow> NearestRounder::round_lm_head(ConstView weights, const Scheme& scheme,
                                                        Workers& workers) {
  return round_to_nearest(weights, scheme.lm_head, workers);
}

std::vector<Matrix*> parts_of(MatrixKind kind, LayerWeights& weights) {
  switch (kind) {
    case MatrixKind::qkv:
      return {&weights.q, &weights.k, &weights.v};
    case MatrixKind::o:
      return {&weights.o};
    case MatrixKind::gate_up:
      return {&weights.gate, &weights.up};
    case MatrixKind::down:
      return {&weights.down};
    case MatrixKind::lm_head:
      break;
  }
  throw std::invalid_argument("lm_head is no matrix of a layer");
}

void put_rows(MatrixKind kind, std::span<const QuantizedRow> rows, LayerWeights& weights) {
  size_t at = 0;
  for (Matrix* part : parts_of(kind, weights)) {
    for (size_t r = 0; r < part->rows(); ++r, ++at) {
      if (at >= rows.size() || rows[at].q.size() != part->cols()) {
        throw std::invalid_argument("rounded rows that are not of this matrix");
      }
      const std::vector<float> values = dequantize_row(rows[at]);
      std::copy(values.begin(), values.end(), part->row(r).begin());
    }
  }
}

}  // namespace flexllm::quantizer
