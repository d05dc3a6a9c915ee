#include "quantizer/rounding/gptq_rounder.h"

#include <algorithm>
#include <functional>
#include <span>
#include <sstream>
#include <stdexcept>
#include <utility>

#include "formats/sha256.h"
#include "quantizer/algebra/products.h"

namespace flexllm::quantizer {
namespace {

std::string key_of(const GptqSettings& settings, const GptqRounder::Windows& windows) {
  std::vector<uint32_t> all;
  for (const std::vector<uint32_t>& window : windows) {
    all.push_back(static_cast<uint32_t>(window.size()));
    all.insert(all.end(), window.begin(), window.end());
  }
  std::ostringstream key;
  key << "gptq damping " << settings.damping
      << (settings.order == GptqOptions::Order::descending ? " descending" : " natural") << " text "
      << formats::to_hex(formats::sha256(std::as_bytes(std::span(all))));
  return key.str();
}

MatrixKind kind_of(Stage stage) {
  switch (stage) {
    case Stage::qkv:
      return MatrixKind::qkv;
    case Stage::o:
      return MatrixKind::o;
    case Stage::gate_up:
      return MatrixKind::gate_up;
    case Stage::down:
      break;
  }
  return MatrixKind::down;
}

Matrix stack(const std::vector<Matrix*>& parts) {
  std::vector<float> elements;
  size_t rows = 0;
  for (const Matrix* part : parts) {
    elements.insert(elements.end(), part->elements().begin(), part->elements().end());
    rows += part->rows();
  }
  return {rows, parts.front()->cols(), std::move(elements)};
}

size_t index(Stage stage) { return static_cast<size_t>(kind_of(stage)); }

// Sums the Hessian of a stage while its inputs pass, then rounds its matrices.
class RoundingHook final : public LayerHook {
 public:
  using Options = std::function<GptqOptions(MatrixKind)>;
  RoundingHook(Options options, Workers& workers)
      : options_(std::move(options)), workers_(workers) {}

  void inputs(Stage /*stage*/, ConstView rows) override {
    if (hessian_.rows() == 0) hessian_ = Matrix(rows.cols, rows.cols);
    symmetric_product(hessian_, rows, workers_);
  }

  void revise(Stage stage, LayerWeights& weights) override {
    const MatrixKind kind = kind_of(stage);
    std::vector<QuantizedRow>& rows = rows_[index(stage)];
    rows = gptq(stack(parts_of(kind, weights)), hessian_, options_(kind), workers_);
    put_rows(kind, rows, weights);
    hessian_ = Matrix();
  }

  LayerRows take_rows() { return std::move(rows_); }

 private:
  const Options options_;
  Workers& workers_;
  Matrix hessian_;
  LayerRows rows_;
};

// Puts what an earlier run has rounded in the place of the weights.
class ResumingHook final : public LayerHook {
 public:
  explicit ResumingHook(const LayerRows& rows) : rows_(rows) {}
  void inputs(Stage /*stage*/, ConstView /*rows*/) override {}
  void revise(Stage stage, LayerWeights& weights) override {
    put_rows(kind_of(stage), rows_[index(stage)], weights);
  }

 private:
  const LayerRows& rows_;
};

}  // namespace

GptqRounder::GptqRounder(const formats::Checkpoint& checkpoint, const Scheme& scheme,
                         const GptqSettings& settings, const Windows& windows, Workers& workers)
    : settings_(settings),
      key_(key_of(settings, windows)),
      model_(checkpoint, float_options(scheme, checkpoint.config().layers), workers) {
  if (windows.empty()) throw std::invalid_argument("GptqRounder: no text to calibrate with");
  const std::vector<std::span<const uint32_t>> views(windows.begin(), windows.end());
  batch_ = model_.embed(views);
}

LayerRows GptqRounder::round_layer(uint32_t layer, LayerWeights weights, const Scheme& scheme,
                                   Workers& workers) {
  RoundingHook hook([&](MatrixKind kind) { return options(scheme.of({layer, kind})); }, workers);
  take_through(layer, weights, hook);
  return hook.take_rows();
}

void GptqRounder::resume_layer(uint32_t layer, LayerWeights weights, const LayerRows& rows,
                               const Scheme& /*scheme*/, Workers& /*workers*/) {
  ResumingHook hook(rows);
  take_through(layer, weights, hook);
}

std::vector<QuantizedRow> GptqRounder::round_lm_head(ConstView weights, const Scheme& scheme,
                                                     Workers& workers) {
  if (head_hessian_.rows() == 0) {
    const Matrix inputs = model_.head_inputs(batch_);
    head_hessian_ = Matrix(inputs.cols(), inputs.cols());
    symmetric_product(head_hessian_, inputs, workers);
  }
  return gptq(weights, head_hessian_, options(scheme.lm_head), workers);
}

void GptqRounder::take_through(uint32_t layer, LayerWeights& weights, LayerHook& hook) {
  if (layer != layer_) throw std::logic_error("GptqRounder: layers out of order");
  model_.run_layer(batch_, layer, weights, &hook);
  ++layer_;
}

GptqOptions GptqRounder::options(const MatrixPrecision& precision) const {
  return {.bits = precision.weight_bits,
          .grouped = precision.grouped,
          .damping = settings_.damping,
          .order = settings_.order};
}

FloatOptions float_options(const Scheme& scheme, uint32_t layers) {
  FloatOptions options;
  for (uint32_t layer = 0; layer < layers; ++layer) {
    const auto before = [&](MatrixKind kind) {
      return RowRounding::before(scheme.of({layer, kind}).encoded(false));
    };
    options.activations.push_back({.qkv = before(MatrixKind::qkv),
                                   .o = before(MatrixKind::o),
                                   .gate_up = before(MatrixKind::gate_up),
                                   .down = before(MatrixKind::down)});
  }
  options.lm_head = RowRounding::before(scheme.lm_head.encoded(false));
  options.int8_attention = true;
  options.probability_bits = scheme.probability_bits;
  options.rotate_down = scheme.rotate_down;
  return options;
}

}  // namespace flexllm::quantizer
