#include "quantizer/float_model/log_probabilities.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "quantizer/float_model/running_sum.h"

namespace flexllm::quantizer {
namespace {

constexpr size_t kBatchTokens = 16384;
constexpr size_t kHeadRows = 2048;  // rows whose logits are in memory together

void append_log_probabilities(const FloatModel& model, ConstView inputs,
                              std::span<const uint32_t> targets, std::vector<double>& out) {
  std::vector<RunningSum> sums(inputs.rows);
  std::vector<double> at_target(inputs.rows);
  model.for_logits(inputs, [&](uint32_t first_token, ConstView logits) {
    model.workers().run(inputs.rows, [&](size_t r) {
      sums[r].add(logits.row(r));
      const uint32_t target = targets[r];
      if (target >= first_token && target - first_token < logits.cols) {
        at_target[r] = logits(r, target - first_token);
      }
    });
  });
  for (size_t r = 0; r < inputs.rows; ++r) out.push_back(at_target[r] - sums[r].log());
}

}  // namespace

std::span<const ScoredWindow> next_batch(std::span<const ScoredWindow> windows) {
  size_t tokens = 0;
  size_t count = 0;
  while (count < windows.size()) {
    tokens += windows[count].tokens.size();
    if (count > 0 && tokens > kBatchTokens) break;
    ++count;
  }
  return windows.first(count);
}

TokenBatch embed(const FloatModel& model, std::span<const ScoredWindow> batch) {
  std::vector<std::span<const uint32_t>> texts;
  for (const ScoredWindow& window : batch) texts.emplace_back(window.tokens);
  return model.embed(texts);
}

Predictions predictions_of(const FloatModel& model, std::span<const ScoredWindow> batch,
                           const TokenBatch& tokens) {
  size_t count = 0;
  for (const ScoredWindow& window : batch) count += window.predictions();
  const Matrix rows = model.head_inputs(tokens);
  Predictions predictions{Matrix(count, rows.cols()), {}};
  for (size_t w = 0; w < batch.size(); ++w) {
    for (size_t i = 0; i < batch[w].predictions(); ++i) {
      const size_t row = batch[w].first_row + i;
      std::ranges::copy(rows.row(tokens.starts[w] + row),
                        predictions.inputs.row(predictions.targets.size()).begin());
      predictions.targets.push_back(batch[w].tokens[row + 1]);
    }
  }
  return predictions;
}

std::vector<double> target_log_probabilities(
    const FloatModel& model, std::span<const ScoredWindow> windows,
    const std::function<void(std::span<const double>)>& progress) {
  std::vector<double> values;
  while (!windows.empty()) {
    const auto batch = next_batch(windows);
    windows = windows.subspan(batch.size());
    TokenBatch tokens = embed(model, batch);
    for (uint32_t layer = 0; layer < model.config().layers; ++layer) {
      model.run_layer(tokens, layer);
    }
    const Predictions predictions = predictions_of(model, batch, tokens);
    const size_t before = values.size();
    for (size_t at = 0; at < predictions.targets.size(); at += kHeadRows) {
      const size_t count = std::min(kHeadRows, predictions.targets.size() - at);
      append_log_probabilities(model, predictions.inputs.view().row_range(at, count),
                               std::span(predictions.targets).subspan(at, count), values);
    }
    if (progress) progress(std::span(values).subspan(before));
  }
  return values;
}

}  // namespace flexllm::quantizer
