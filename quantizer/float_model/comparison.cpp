#include "quantizer/float_model/comparison.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <stdexcept>

#include "quantizer/algebra/products.h"
#include "quantizer/float_model/rows.h"

namespace flexllm::quantizer {
namespace {

constexpr size_t kHeadRows = 2048;
constexpr float kLowest = -std::numeric_limits<float>::infinity();

// Two rows of logits that come in parts, the same of each.
class RunningDivergence {
 public:
  void add(std::span<const float> a, std::span<const float> b, uint32_t first_token) {
    raise(a_, a, first_token);
    raise(b_, b, first_token);
    for (size_t i = 0; i < a.size(); ++i) {
      const double p = std::exp(double{a[i]} - a_.largest);
      a_.sum += p;
      weighted_ += p * (double{a[i]} - b[i]);
      b_.sum += std::exp(double{b[i]} - b_.largest);
    }
  }
  // sum p_a (ln p_a - ln p_b)
  double divergence() const { return weighted_ / a_.sum - (log_sum_a() - log_sum_b()); }
  double log_sum_a() const { return a_.largest + std::log(a_.sum); }
  double log_sum_b() const { return b_.largest + std::log(b_.sum); }
  bool same_top() const { return a_.top == b_.top; }

 private:
  struct Side {
    double largest = kLowest;
    double sum = 0;
    uint32_t top = 0;
  };
  void raise(Side& side, std::span<const float> logits, uint32_t first_token) {
    const auto highest = std::ranges::max_element(logits);
    if (!(*highest > side.largest)) return;
    const double factor = std::exp(side.largest - *highest);
    side.sum *= factor;
    if (&side == &a_) weighted_ *= factor;
    side.largest = *highest;
    side.top = first_token + static_cast<uint32_t>(highest - logits.begin());
  }
  Side a_, b_;
  double weighted_ = 0;
};

// Sums of squares over rows: of the differences, and of a's own.
struct Squares {
  double difference = 0;
  double size = 0;
};

Matrix in_own_basis(const ComparedModel& compared, const Matrix& stored) {
  if (compared.basis == nullptr) return stored;
  Matrix states(stored.rows(), stored.cols());
  multiply_transposed(states, stored, *compared.basis, compared.model.workers());
  return states;
}

void add_squares(const ComparedModel& a, const Matrix& stored_a, const ComparedModel& b,
                 const Matrix& stored_b, Squares& squares) {
  const Matrix states_a = in_own_basis(a, stored_a);
  const Matrix states_b = in_own_basis(b, stored_b);
  for (size_t i = 0; i < states_a.elements().size(); ++i) {
    const double x = states_a.elements()[i];
    const double d = states_b.elements()[i] - x;
    squares.difference += d * d;
    squares.size += x * x;
  }
}

void compare_heads(const ComparedModel& a, const Predictions& rows_a, const ComparedModel& b,
                   const Predictions& rows_b, Comparison& out) {
  for (size_t at = 0; at < rows_a.targets.size(); at += kHeadRows) {
    const size_t count = std::min(kHeadRows, rows_a.targets.size() - at);
    std::vector<RunningDivergence> running(count);
    std::vector<double> target_a(count), target_b(count);
    const ConstView inputs_b = rows_b.inputs.view().row_range(at, count);
    a.model.for_logits(rows_a.inputs.view().row_range(at, count), [&](uint32_t first,
                                                                      ConstView logits_a) {
      const Matrix logits_b = b.model.logits(inputs_b, first, static_cast<uint32_t>(logits_a.cols));
      a.model.workers().run(count, [&](size_t r) {
        running[r].add(logits_a.row(r), logits_b.row(r), first);
        const uint32_t target = rows_a.targets[at + r];
        if (target < first || target - first >= logits_a.cols) return;
        target_a[r] = logits_a(r, target - first);
        target_b[r] = logits_b(r, target - first);
      });
    });
    for (size_t r = 0; r < count; ++r) {
      out.divergence.push_back(running[r].divergence());
      out.log_probabilities_a.push_back(target_a[r] - running[r].log_sum_a());
      out.log_probabilities_b.push_back(target_b[r] - running[r].log_sum_b());
      out.same_top += running[r].same_top() ? 1 : 0;
    }
  }
}

}  // namespace

Comparison compare(const ComparedModel& a, const ComparedModel& b,
                   std::span<const ScoredWindow> windows,
                   const std::function<void(size_t)>& progress) {
  const formats::ModelConfig& config_a = a.model.config();
  const formats::ModelConfig& config_b = b.model.config();
  if (config_a.vocab != config_b.vocab) {
    throw std::invalid_argument("models with different vocabularies cannot be compared");
  }
  const bool alike = config_a.layers == config_b.layers && config_a.hidden == config_b.hidden;
  std::vector<Squares> squares(alike ? config_a.layers + 1 : 0);
  Comparison out;
  while (!windows.empty()) {
    const auto batch = next_batch(windows);
    windows = windows.subspan(batch.size());
    TokenBatch in_a = embed(a.model, batch);
    TokenBatch in_b = embed(b.model, batch);
    for (uint32_t layer = 0; layer < std::max(config_a.layers, config_b.layers); ++layer) {
      if (alike) add_squares(a, in_a.residual, b, in_b.residual, squares[layer]);
      if (layer < config_a.layers) a.model.run_layer(in_a, layer);
      if (layer < config_b.layers) b.model.run_layer(in_b, layer);
    }
    if (alike) add_squares(a, in_a.residual, b, in_b.residual, squares.back());
    compare_heads(a, predictions_of(a.model, batch, in_a), b, predictions_of(b.model, batch, in_b),
                  out);
    if (progress) progress(out.divergence.size());
  }
  for (const Squares& sums : squares) {
    out.layer_error.push_back(sums.size > 0 ? std::sqrt(sums.difference / sums.size) : 0);
  }
  return out;
}

}  // namespace flexllm::quantizer
