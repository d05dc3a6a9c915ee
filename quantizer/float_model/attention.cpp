#include "quantizer/float_model/attention.h"

#include <algorithm>
#include <cmath>

#include "kernels/contract/numerics.h"
#include "quantizer/algebra/products.h"
#include "quantizer/float_model/rows.h"

namespace flexllm::quantizer {
namespace {

constexpr size_t kQueries = 128;  // rows of scores that a task holds
constexpr size_t kRows = 64;      // rows that a task prepares

// cos and sin of every angle up to the longest window, as the packed model's tables hold them.
class RopeTable {
 public:
  RopeTable(std::span<const double> frequencies, size_t positions, Workers& workers)
      : cosines_(positions, frequencies.size()), sines_(positions, frequencies.size()) {
    workers.run(positions, [&](size_t p) {
      for (size_t i = 0; i < frequencies.size(); ++i) {
        const double angle = static_cast<double>(p) * frequencies[i];
        cosines_(p, i) = static_cast<float>(std::cos(angle));
        sines_(p, i) = static_cast<float>(std::sin(angle));
      }
    });
  }
  std::span<const float> cosines(size_t position) const { return cosines_.row(position); }
  std::span<const float> sines(size_t position) const { return sines_.row(position); }

 private:
  Matrix cosines_, sines_;
};

class Attention {
 public:
  Attention(const AttentionShape& shape, std::span<const size_t> starts, View q, View k, View v,
            View out, Workers& workers)
      : shape_(shape), starts_(starts), q_(q), k_(k), v_(v), out_(out), workers_(workers) {
    if (shape.int8) value_scales_ = Matrix(shape.kv_heads, q.rows);
  }

  void run() {
    prepare();
    struct Task {
      size_t window, head, first;
    };
    std::vector<Task> tasks;
    for (size_t w = 0; w + 1 < starts_.size(); ++w) {
      for (size_t head = 0; head < shape_.heads; ++head) {
        for (size_t first = starts_[w]; first < starts_[w + 1]; first += kQueries) {
          tasks.push_back({w, head, first});
        }
      }
    }
    workers_.run(tasks.size(),
                 [&](size_t i) { attend_block(tasks[i].window, tasks[i].head, tasks[i].first); });
  }

 private:
  // Norms, RoPE and rounding. Keys and queries go back to floats; so do values, unless
  // probabilities are rounded together with their scales.
  void prepare() {
    size_t longest = 0;
    for (size_t w = 0; w + 1 < starts_.size(); ++w) {
      longest = std::max(longest, starts_[w + 1] - starts_[w]);
    }
    const RopeTable rope(shape_.frequencies, longest, workers_);
    const size_t blocks = (q_.rows + kRows - 1) / kRows;
    workers_.run(blocks, [&](size_t block) {
      const size_t end = std::min(q_.rows, (block + 1) * kRows);
      for (size_t row = block * kRows; row < end; ++row) prepare_row(rope, row);
    });
  }

  void prepare_row(const RopeTable& rope, size_t row) {
    const auto window = std::upper_bound(starts_.begin(), starts_.end(), row) - 1;
    const size_t position = row - *window;
    const auto each_head = [&](View matrix, size_t heads, std::span<const float> norm) {
      for (size_t h = 0; h < heads; ++h) {
        const std::span<float> head = head_of(matrix, row, h);
        if (!norm.empty()) rms_norm(head, norm, shape_.rms_eps, head);
        rotate_head(head, rope.cosines(position), rope.sines(position));
        if (shape_.int8) scale_back(head, round_symmetric(head));
      }
    };
    each_head(q_, shape_.heads, shape_.q_norm);
    each_head(k_, shape_.kv_heads, shape_.k_norm);
    if (!shape_.int8) return;
    for (size_t h = 0; h < shape_.kv_heads; ++h) {
      const std::span<float> head = head_of(v_, row, h);
      const float scale = round_symmetric(head);
      value_scales_(h, row) = scale;
      if (shape_.probability_bits == 0) scale_back(head, scale);
    }
  }

  void attend_block(size_t window, size_t head, size_t first) {
    const size_t begin = starts_[window];
    const size_t queries = std::min(kQueries, starts_[window + 1] - first);
    const size_t keys = first + queries - begin;
    const size_t dim = shape_.head_dim;
    const size_t kv_head = head / (shape_.heads / shape_.kv_heads);
    thread_local std::vector<float> buffer;
    if (buffer.size() < queries * keys) buffer.resize(queries * keys);
    const View scores{buffer.data(), queries, keys, keys};
    multiply_transposed(scores, q_.part(first, queries, head * dim, dim),
                        k_.part(begin, keys, kv_head * dim, dim), workers_,
                        {1 / std::sqrt(static_cast<double>(dim)), 0});
    std::vector<float> factors(queries);  // what a row of the product is multiplied with
    for (size_t r = 0; r < queries; ++r) {
      const size_t seen = first + r + 1 - begin;
      const std::span<float> row = scores.row(r).first(seen);
      factors[r] = shape_.probability_bits == 0
                       ? softmax(row)
                       : rounded_softmax(row, value_scales_.row(kv_head).subspan(begin, seen));
      std::ranges::fill(scores.row(r).subspan(seen), 0.0f);
    }
    const View out = out_.part(first, queries, head * dim, dim);
    multiply(out, scores, v_.part(begin, keys, kv_head * dim, dim), workers_);
    for (size_t r = 0; r < queries; ++r) scale_back(out.row(r), factors[r]);
  }

  // Leaves the numerators; returns one over their sum.
  static float softmax(std::span<float> scores) {
    const float largest = largest_of(scores);
    for (float& score : scores) score = kernels::exp_nonpositive(score - largest);
    return 1 / sum_of(scores);
  }

  // Section 5, step 6, with integers held as floats.
  float rounded_softmax(std::span<float> scores, std::span<const float> scales) const {
    const float top = shape_.probability_bits == 8 ? 255.0f : 65535.0f;
    const float largest = largest_of(scores);
    const float widest = largest_of(scales);
    const float inverse = widest > 0 ? 1 / widest : 0;
    int64_t sum = 0;
    for (size_t t = 0; t < scores.size(); ++t) {
      const float e = kernels::exp_nonpositive(scores[t] - largest);
      sum += static_cast<int32_t>(kernels::quantize_unsigned(e * top, top));
      scores[t] = static_cast<float>(
          static_cast<int32_t>(kernels::quantize_unsigned(e * (scales[t] * inverse) * top, top)));
    }
    return widest / static_cast<float>(sum);
  }

  static void scale_back(std::span<float> values, float factor) {
    for (float& value : values) value *= factor;
  }

  std::span<float> head_of(View matrix, size_t row, size_t head) const {
    return matrix.row(row).subspan(head * shape_.head_dim, shape_.head_dim);
  }

  const AttentionShape& shape_;
  std::span<const size_t> starts_;
  View q_, k_, v_, out_;
  Workers& workers_;
  Matrix value_scales_;  // [kv_heads][tokens]
};

}  // namespace

void attend(const AttentionShape& shape, std::span<const size_t> starts, View q, View k, View v,
            View out, Workers& workers) {
  Attention(shape, starts, q, k, v, out, workers).run();
}

}  // namespace flexllm::quantizer
