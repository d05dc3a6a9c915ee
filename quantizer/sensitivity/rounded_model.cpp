#include "quantizer/sensitivity/rounded_model.h"

#include <algorithm>
#include <iterator>
#include <string>
#include <utility>

#include "quantizer/rounding/gptq_rounder.h"

namespace flexllm::quantizer {
namespace {

constexpr MatrixKind kKinds[] = {MatrixKind::qkv, MatrixKind::o, MatrixKind::gate_up,
                                 MatrixKind::down};
constexpr uint32_t kSliceRows = 4096;  // of the vocabulary, at a time

}  // namespace

Scheme raise(Scheme low, const Raised& raised, const MatrixPrecision& high) {
  for (const MatrixId& id : raised) low.exceptions[id] = high;
  return low;
}

std::vector<MatrixId> raisable(const Scheme& low, uint32_t layers) {
  std::vector<MatrixId> all;
  for (uint32_t layer = 0; layer < layers; ++layer) {
    for (const MatrixKind kind : kKinds) {
      if (low.of({layer, kind}) == low.linears) all.push_back({layer, kind});
    }
  }
  return all;
}

RoundedModel::RoundedModel(const formats::Checkpoint& checkpoint, const Options& options,
                           Workers& workers)
    : checkpoint_(checkpoint), workers_(workers), low_(options.low), high_(options.high) {
  const uint32_t layers = checkpoint.config().layers;
  const std::vector<MatrixId> all = quantizer::raisable(low_, layers);
  const Scheme high = scheme(Raised(all.begin(), all.end()));
  const FloatModel model(checkpoint, float_options(low_, layers), workers);
  for (uint32_t layer = 0; layer < layers; ++layer) {
    Layer& rounded = layers_.emplace_back();
    LayerWeights weights = model.load_layer(layer);
    rounded.low = options.low_rounder.round_layer(layer, weights, low_, workers);
    rounded.high = options.high_rounder.round_layer(layer, weights, high, workers);
    for (const MatrixKind kind : kKinds) {
      for (Matrix* part : parts_of(kind, weights)) {
        *part = Matrix(part->rows(), 0, {});
      }
    }
    rounded.rest = std::move(weights);
    if (options.progress) options.progress((layer + 1.0) / (layers + 1.0));
  }
  round_head(options.low_rounder);
  if (options.progress) options.progress(1);
}

void RoundedModel::round_head(Rounder& rounder) {
  const formats::ModelConfig& config = checkpoint_.config();
  const std::string name = config.tied_embeddings ? "model.embed_tokens.weight" : "lm_head.weight";
  for (uint32_t first = 0; first < config.vocab; first += kSliceRows) {
    Matrix slice(std::min(kSliceRows, config.vocab - first), config.hidden);
    checkpoint_.read_rows_f32(name, first, slice.rows(), slice.elements());
    auto rows = rounder.round_lm_head(slice, low_, workers_);
    std::move(rows.begin(), rows.end(), std::back_inserter(head_));
  }
}

LayerWeights RoundedModel::layer(uint32_t layer, const Raised& raised) const {
  LayerWeights weights = layers_.at(layer).rest;
  for (const MatrixKind kind : kKinds) {
    const MatrixId id{layer, kind};
    put(id, raised.contains(id), weights);
  }
  return weights;
}

void RoundedModel::put(const MatrixId& id, bool high, LayerWeights& weights) const {
  const Layer& layer = layers_.at(id.layer);
  const auto& rows = (high ? layer.high : layer.low)[static_cast<size_t>(id.kind)];
  for (Matrix* part : parts_of(id.kind, weights)) {
    if (part->cols() == 0) *part = Matrix(part->rows(), rows.front().q.size());
  }
  put_rows(id.kind, rows, weights);
}

Matrix RoundedModel::head(uint32_t first, uint32_t tokens) const {
  Matrix slice(tokens, checkpoint_.config().hidden);
  workers_.run(tokens, [&](size_t r) {
    const std::vector<float> values = dequantize_row(head_.at(first + r));
    std::ranges::copy(values, slice.row(r).begin());
  });
  return slice;
}

}  // namespace flexllm::quantizer
