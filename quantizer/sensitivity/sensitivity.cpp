#include "quantizer/sensitivity/sensitivity.h"

#include <algorithm>
#include <array>
#include <utility>

#include "quantizer/rounding/gptq_rounder.h"

namespace flexllm::quantizer {
namespace {

constexpr std::array kKinds = {MatrixKind::qkv, MatrixKind::o, MatrixKind::gate_up,
                               MatrixKind::down};

FloatModel float_model(const RoundedModel& rounded, const Raised& raised) {
  return {rounded.checkpoint(), float_options(rounded.scheme(raised), rounded.layers()),
          rounded.workers()};
}

// The windows of `added` behind those of `all`.
void append(TokenBatch& all, const TokenBatch& added) {
  if (added.starts.empty()) return;
  if (all.starts.empty()) {
    all = added;
    return;
  }
  const size_t before = all.tokens();
  for (size_t w = 1; w < added.starts.size(); ++w) all.starts.push_back(before + added.starts[w]);
  Matrix rows(all.tokens(), added.residual.cols());
  const auto next = std::ranges::copy(all.residual.elements(), rows.elements().begin()).out;
  std::ranges::copy(added.residual.elements(), next);
  all.residual = std::move(rows);
}

}  // namespace

Sensitivities measure_sensitivities(const RoundedModel& rounded, const Reference& reference,
                                    const std::function<void(double)>& progress) {
  const std::vector<MatrixId> ids = rounded.raisable();
  const Raised raised(ids.begin(), ids.end());
  const FloatModel high = float_model(rounded, raised);
  // Lowered in one kind of matrix; each runs only the layer whose matrix it is about.
  std::vector<FloatModel> lowered;
  for (const MatrixKind kind : kKinds) {
    Raised others = raised;
    std::erase_if(others, [&](const MatrixId& id) { return id.kind == kind; });
    lowered.push_back(float_model(rounded, others));
  }

  const formats::ModelConfig& config = high.config();
  const double layer_work = 1.0 * config.hidden * (config.hidden * 2.0 + config.ffn * 3.0);
  const auto count = static_cast<double>(ids.size());
  const double head_work = 1.0 * config.hidden * config.vocab * (count + 1);
  const double all_work = head_work + layer_work * config.layers * (3 + count / 2);
  double work = 0;

  TokenBatch base = high.embed(reference.views());
  TokenBatch variants;  // one behind the other, those of the first layers first
  for (uint32_t layer = 0; layer < config.layers; ++layer) {
    LayerWeights weights = rounded.layer(layer, raised);
    if (!variants.starts.empty()) {
      high.run_layer(variants, layer, weights);
      work += layer_work * static_cast<double>(variants.tokens() / base.tokens());
    }
    for (const MatrixKind kind : kKinds) {
      const MatrixId id{layer, kind};
      if (!raised.contains(id)) continue;
      TokenBatch variant = base;
      rounded.put(id, false, weights);
      lowered[static_cast<size_t>(kind)].run_layer(variant, layer, weights);
      rounded.put(id, true, weights);
      append(variants, variant);
    }
    high.run_layer(base, layer, weights);
    work += layer_work * 5;
    if (progress) progress(std::min(1.0, work / all_work));
  }
  append(base, variants);
  variants = {};
  const Matrix inputs = high.head_inputs(base);
  base = {};
  const std::vector<Distance> distances = reference.distances(rounded, inputs, [&](double share) {
    if (progress) progress(std::min(1.0, work / all_work + share * (1 - work / all_work)));
  });
  Sensitivities out;
  out.high = distances.at(0).divergence;
  for (size_t i = 0; i < ids.size(); ++i) {
    out.matrices.push_back({ids[i], distances.at(i + 1).divergence});
  }
  return out;
}

Distance measure(const RoundedModel& rounded, const Raised& raised, const Reference& reference) {
  const FloatModel model = float_model(rounded, raised);
  TokenBatch batch = model.embed(reference.views());
  for (uint32_t layer = 0; layer < rounded.layers(); ++layer) {
    LayerWeights weights = rounded.layer(layer, raised);
    model.run_layer(batch, layer, weights);
  }
  return reference.distances(rounded, model.head_inputs(batch)).front();
}

}  // namespace flexllm::quantizer
