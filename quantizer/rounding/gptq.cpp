#include "quantizer/rounding/gptq.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <stdexcept>

#include "quantizer/algebra/cholesky.h"
#include "quantizer/algebra/products.h"

namespace flexllm::quantizer {
namespace {

constexpr size_t kTileOutputs = 64;  // outputs that one worker rounds together

// GPTQ rounds, as the k-th input,
//   w_k + sum over earlier j of (w_j - rounded w_j) U_jk,
// where H = U D U^T with U upper triangular of unit diagonal (Chee et al., QuIP, arXiv 2307.13304,
// theorem 6). So no inverse is needed, errors are always those of the true weights, and what a
// block is corrected by for the blocks before it is one product.
struct Problem {
  std::vector<uint32_t> order;  // order[k]: the input that is rounded as the k-th
  Matrix hessian;               // damped, in that order
  Matrix feedback;              // U
};

double mean_of_diagonal(ConstView hessian) {
  double sum = 0;
  for (size_t i = 0; i < hessian.rows; ++i) sum += hessian(i, i);
  return sum / static_cast<double>(hessian.rows);
}

void check(ConstView weights, ConstView hessian, const GptqOptions& options) {
  if (hessian.rows != weights.cols || hessian.cols != weights.cols || weights.cols == 0) {
    throw std::invalid_argument("gptq: the Hessian is not of the matrix's inputs");
  }
  if (options.block == 0 || !(options.damping > 0)) {
    throw std::invalid_argument("gptq: block and damping must be above 0");
  }
  for (size_t i = 0; i < hessian.rows; ++i) {
    const std::span<const float> row = hessian.row(i);
    if (!std::all_of(row.begin(), row.end(), [](float h) { return std::isfinite(h); }) ||
        row[i] < 0) {
      throw std::domain_error("gptq: the Hessian is not finite, or negative on its diagonal");
    }
  }
}

std::vector<uint32_t> order_of(ConstView hessian, GptqOptions::Order order) {
  std::vector<uint32_t> inputs(hessian.rows);
  std::iota(inputs.begin(), inputs.end(), 0u);
  if (order == GptqOptions::Order::descending) {
    std::stable_sort(inputs.begin(), inputs.end(),
                     [&](uint32_t a, uint32_t b) { return hessian(a, a) > hessian(b, b); });
  }
  return inputs;
}

// U of the damped Hessian in `order`. Eliminating from the last input to the first, H = r r^T with
// r upper triangular, and U is r with its columns divided by their diagonal.
Matrix feedback_of(ConstView hessian, const std::vector<uint32_t>& order, double damping,
                   Workers& workers) {
  const size_t n = order.size();
  DoubleMatrix reversed(n, n);
  for (size_t i = 0; i < n; ++i) {
    for (size_t j = 0; j <= i; ++j) {
      reversed(i, j) = hessian(order[n - 1 - i], order[n - 1 - j]);
    }
    reversed(i, i) += damping;
  }
  factor_cholesky(reversed, workers);
  Matrix feedback(n, n);
  for (size_t j = 0; j < n; ++j) {
    for (size_t k = j; k < n; ++k) {
      const size_t at = n - 1 - k;
      feedback(j, k) = static_cast<float>(reversed(n - 1 - j, at) / reversed(at, at));
    }
  }
  return feedback;
}

Problem prepare(ConstView hessian, const GptqOptions& options, Workers& workers) {
  Problem problem;
  problem.order = order_of(hessian, options.order);
  const double mean = mean_of_diagonal(hessian);
  // With no input at all every direction counts alike.
  double damping = mean > 0 ? options.damping * mean : 1;
  for (;; damping *= 10) {
    try {
      problem.feedback = feedback_of(hessian, problem.order, damping, workers);
      break;
    } catch (const NotPositiveDefinite&) {
      // A Hessian of finite numbers is diagonally dominant long before this.
      if (damping > mean * static_cast<double>(hessian.rows) * 100) throw;
    }
  }
  const size_t n = hessian.rows;
  problem.hessian = Matrix(n, n);
  for (size_t i = 0; i < n; ++i) {
    for (size_t j = 0; j < n; ++j) {
      problem.hessian(i, j) = hessian(problem.order[i], problem.order[j]);
    }
    problem.hessian(i, i) += static_cast<float>(damping);
  }
  return problem;
}

// The outputs of one tile, inputs in the order of the problem.
class Tile {
 public:
  Tile(ConstView weights, std::span<QuantizedRow> rows, const Problem& problem,
       const GptqOptions& options, Workers& workers)
      : rows_(rows),
        problem_(problem),
        options_(options),
        workers_(workers),
        weights_(weights.rows, weights.cols),
        errors_(weights.rows, weights.cols) {
    for (size_t r = 0; r < weights.rows; ++r) {
      for (size_t k = 0; k < weights.cols; ++k) weights_(r, k) = weights(r, problem.order[k]);
      rows[r].q.resize(weights.cols);
    }
  }

  void round() {
    const size_t inputs = weights_.cols();
    for (size_t begin = 0; begin < inputs; begin += options_.block) {
      const size_t count = std::min<size_t>(options_.block, inputs - begin);
      Matrix corrections(rows_.size(), count);
      if (begin > 0) {
        multiply(corrections, errors_.view().part(0, rows_.size(), 0, begin),
                 problem_.feedback.view().part(0, begin, begin, count), workers_);
      }
      for (size_t r = 0; r < rows_.size(); ++r) {
        const std::span<float> row = corrections.row(r);
        for (size_t k = begin; k < begin + count; ++k) {
          const float error = place(r, k, double{weights_(r, k)} + row[k - begin]);
          add_scaled(row, problem_.feedback, k, begin, error);
        }
      }
    }
  }

 private:
  // Rounds `target` for input k of row r; returns what is missing from the true weight.
  float place(size_t r, size_t k, double target) {
    const uint32_t input = problem_.order[k];
    const double step = rows_[r].step(input);
    const int8_t q = round_weight(target, step, options_.bits);
    rows_[r].q[input] = q;
    return errors_(r, k) = static_cast<float>(weights_(r, k) - q * step);
  }

  // Adds factor * matrix(k, k + 1 ...) to what follows k in its block.
  static void add_scaled(std::span<float> row, const Matrix& matrix, size_t k, size_t begin,
                         float factor) {
    const float* from = matrix.row(k).data() + begin;
    for (size_t j = k - begin + 1; j < row.size(); ++j) row[j] += factor * from[j];
  }

  std::span<QuantizedRow> rows_;
  const Problem& problem_;
  const GptqOptions& options_;
  Workers& workers_;
  Matrix weights_;
  Matrix errors_;
};

// Relative to the largest, so that the unit of the Hessian does not matter.
std::vector<float> importance_of(const Problem& problem) {
  std::vector<float> importance(problem.order.size());
  float largest = 0;
  for (size_t k = 0; k < importance.size(); ++k) {
    importance[problem.order[k]] = problem.hessian(k, k);
    largest = std::max(largest, problem.hessian(k, k));
  }
  for (float& i : importance) i /= largest;
  return importance;
}

}  // namespace

std::vector<QuantizedRow> gptq(ConstView weights, ConstView hessian, const GptqOptions& options,
                               Workers& workers) {
  check(weights, hessian, options);
  const Problem problem = prepare(hessian, options, workers);
  const std::vector<float> importance = importance_of(problem);
  std::vector<QuantizedRow> rows(weights.rows);
  workers.run((rows.size() + kTileOutputs - 1) / kTileOutputs, [&](size_t t) {
    const size_t first = t * kTileOutputs;
    const size_t count = std::min(kTileOutputs, rows.size() - first);
    const std::span<QuantizedRow> part(rows.data() + first, count);
    for (size_t r = 0; r < count; ++r) {
      part[r] = choose_scales(weights.row(first + r), options.bits, options.grouped, importance);
    }
    Tile tile(weights.row_range(first, count), part, problem, options, workers);
    tile.round();
    for (QuantizedRow& row : part) set_weight_sum(row);
  });
  return rows;
}

double output_error(ConstView weights, std::span<const QuantizedRow> rows, ConstView hessian,
                    Workers& workers) {
  if (rows.size() != weights.rows || hessian.rows != weights.cols) {
    throw std::invalid_argument("output_error: shapes that do not fit");
  }
  Matrix errors(weights.rows, weights.cols);
  for (size_t r = 0; r < rows.size(); ++r) {
    const std::vector<float> rounded = dequantize_row(rows[r]);
    for (size_t i = 0; i < weights.cols; ++i) errors(r, i) = weights(r, i) - rounded[i];
  }
  Matrix slopes(weights.rows, weights.cols);
  multiply(slopes, errors, hessian, workers);
  double sum = 0;
  for (size_t i = 0; i < errors.elements().size(); ++i) {
    sum += double{errors.elements()[i]} * slopes.elements()[i];
  }
  return sum;
}

}  // namespace flexllm::quantizer
