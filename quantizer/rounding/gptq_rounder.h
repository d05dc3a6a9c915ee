// GPTQ through a whole model: every matrix is rounded for the inputs that it will have, those that
// come out of the matrices rounded before it, themselves rounded as the kernels round them.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "formats/checkpoint.h"
#include "quantizer/float_model/float_model.h"
#include "quantizer/rounding/gptq.h"
#include "quantizer/rounding/rounder.h"
#include "quantizer/scheme.h"

namespace flexllm::quantizer {

struct GptqSettings {
  double damping = 0.01;
  GptqOptions::Order order = GptqOptions::Order::descending;
};

// Keeps the residual stream of the calibration text in memory, beside what gptq() needs for the
// widest matrix.
class GptqRounder final : public Rounder {
 public:
  using Windows = std::vector<std::vector<uint32_t>>;

  // `checkpoint` and `workers` must outlive it; what it is given to round must come from
  // `checkpoint` and be for `scheme`. Throws std::invalid_argument for windows that are empty or
  // hold a token outside the vocabulary.
  GptqRounder(const formats::Checkpoint& checkpoint, const Scheme& scheme,
              const GptqSettings& settings, const Windows& windows, Workers& workers);

  std::string key() const override { return key_; }
  LayerRows round_layer(uint32_t layer, LayerWeights weights, const Scheme& scheme,
                        Workers& workers) override;
  void resume_layer(uint32_t layer, LayerWeights weights, const LayerRows& rows,
                    const Scheme& scheme, Workers& workers) override;
  std::vector<QuantizedRow> round_lm_head(ConstView weights, const Scheme& scheme,
                                          Workers& workers) override;

 private:
  GptqOptions options(const MatrixPrecision& precision) const;
  void take_through(uint32_t layer, LayerWeights& weights, LayerHook& hook);

  const GptqSettings settings_;
  const std::string key_;
  const FloatModel model_;
  TokenBatch batch_;
  uint32_t layer_ = 0;  // the batch stands before it
  Matrix head_hessian_;
};

// What a float model has to do to see what the kernels of a scheme will see.
FloatOptions float_options(const Scheme& scheme, uint32_t layers);

}  // namespace flexllm::quantizer
