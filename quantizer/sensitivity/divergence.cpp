#include "quantizer/sensitivity/divergence.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <stdexcept>
#include <utility>

#include "quantizer/algebra/products.h"
#include "quantizer/float_model/running_sum.h"

namespace flexllm::quantizer {
namespace {

constexpr uint32_t kSliceTokens = 8192;  // of the vocabulary, at a time
constexpr size_t kBlockRows = 1024;

struct RowState {
  RunningSum sum;
  double cross = 0;       // sum of p (z - z'): p and z the unquantised model's
  double difference = 0;  // z - z' of the token that follows
};

// sum of p (z - z'), in lanes so that the order of the sums is fixed.
double expected_difference(std::span<const float> p, std::span<const float> z,
                           std::span<const float> rounded) {
  std::array<float, 16> lanes{};
  size_t i = 0;
  for (; i + lanes.size() <= p.size(); i += lanes.size()) {
    for (size_t l = 0; l < lanes.size(); ++l) {
      lanes[l] += p[i + l] * (z[i + l] - rounded[i + l]);
    }
  }
  double sum = 0;
  for (const float lane : lanes) sum += lane;
  for (; i < p.size(); ++i) sum += double{p[i]} * (z[i] - rounded[i]);
  return sum;
}

class Mean {
 public:
  void add(double value) {
    ++count_;
    const double delta = value - mean_;
    mean_ += delta / count_;
    squares_ += delta * (value - mean_);
  }
  double value() const { return mean_; }
  double error() const { return count_ > 1 ? std::sqrt(squares_ / (count_ - 1) / count_) : 0; }

 private:
  double count_ = 0;
  double mean_ = 0;
  double squares_ = 0;
};

}  // namespace

Reference::Reference(const formats::Checkpoint& checkpoint, Windows windows, Workers& workers)
    : windows_(std::move(windows)), model_(checkpoint, {}, workers) {
  for (const std::vector<uint32_t>& window : windows_) {
    if (window.size() < 2) throw std::invalid_argument("a window of one token");
    targets_.insert(targets_.end(), window.begin() + 1, window.end());
    targets_.push_back(-1);
  }
  inputs_ = model_.head_inputs(model_.run(views()));
  std::vector<RunningSum> sums(inputs_.rows());
  for (size_t at = 0; at < inputs_.rows(); at += kBlockRows) {
    const size_t count = std::min(kBlockRows, inputs_.rows() - at);
    model_.for_logits(inputs_.view().row_range(at, count), [&](uint32_t, ConstView logits) {
      workers.run(count, [&](size_t r) { sums[at + r].add(logits.row(r)); });
    });
  }
  for (const RunningSum& sum : sums) log_sums_.push_back(sum.log());
}

std::vector<std::span<const uint32_t>> Reference::views() const {
  return {windows_.begin(), windows_.end()};
}

std::vector<Distance> Reference::distances(const RoundedModel& rounded, ConstView inputs,
                                           const std::function<void(double)>& progress) const {
  if (inputs.rows % tokens() != 0) throw std::invalid_argument("rows that are not of this text");
  const size_t models = inputs.rows / tokens();
  Workers& workers = model_.workers();
  const uint32_t vocab = model_.config().vocab;
  std::vector<RowState> states(inputs.rows);
  for (uint32_t first = 0; first < vocab; first += kSliceTokens) {
    const uint32_t slice = std::min(kSliceTokens, vocab - first);
    const Matrix head = rounded.head(first, slice);
    for (size_t at = 0; at < tokens(); at += kBlockRows) {
      const size_t count = std::min(kBlockRows, tokens() - at);
      const Matrix z = model_.logits(inputs_.view().row_range(at, count), first, slice);
      Matrix p(count, slice);
      workers.run(count, [&](size_t r) {
        for (uint32_t i = 0; i < slice; ++i) {
          p(r, i) = static_cast<float>(std::exp(z(r, i) - log_sums_[at + r]));
        }
      });
      Matrix logits(count, slice);
      for (size_t m = 0; m < models; ++m) {
        const size_t begin = m * tokens() + at;
        multiply_transposed(logits, inputs.row_range(begin, count), head, workers);
        workers.run(count, [&](size_t r) {
          RowState& state = states[begin + r];
          state.sum.add(logits.row(r));
          state.cross += expected_difference(p.row(r), z.row(r), logits.row(r));
          const int64_t target = targets_[at + r] - int64_t{first};
          if (target >= 0 && target < slice) {
            const auto t = static_cast<size_t>(target);
            state.difference = double{z(r, t)} - logits(r, t);
          }
        });
      }
    }
    if (progress) progress((first + slice) / static_cast<double>(vocab));
  }
  std::vector<Distance> all;
  for (size_t m = 0; m < models; ++m) {
    Mean divergence;
    Mean loss;
    for (size_t r = 0; r < tokens(); ++r) {
      const RowState& state = states[m * tokens() + r];
      const double sums = state.sum.log() - log_sums_[r];
      divergence.add(state.cross + sums);
      if (targets_[r] >= 0) loss.add(state.difference + sums);
    }
    all.push_back({divergence.value(), divergence.error(), loss.value(), loss.error()});
  }
  return all;
}

}  // namespace flexllm::quantizer
