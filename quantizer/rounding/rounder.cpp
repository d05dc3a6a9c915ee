#include "quantizer/rounding/rounder.h"

#include <iterator>

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
  const auto add = [&](MatrixKind kind, const Matrix& matrix) {
    auto& stacked = rows[static_cast<size_t>(kind)];
    auto rounded = round_to_nearest(matrix, scheme.of({layer, kind}), workers);
    stacked.insert(stacked.end(), std::make_move_iterator(rounded.begin()),
                   std::make_move_iterator(rounded.end()));
  };
  add(MatrixKind::qkv, weights.q);
  add(MatrixKind::qkv, weights.k);
  add(MatrixKind::qkv, weights.v);
  add(MatrixKind::o, weights.o);
  add(MatrixKind::gate_up, weights.gate);
  add(MatrixKind::gate_up, weights.up);
  add(MatrixKind::down, weights.down);
  return rows;
}

std::vector<QuantizedRow> NearestRounder::round_lm_head(ConstView weights, const Scheme& scheme,
                                                        Workers& workers) {
  return round_to_nearest(weights, scheme.lm_head, workers);
}

}  // namespace flexllm::quantizer
