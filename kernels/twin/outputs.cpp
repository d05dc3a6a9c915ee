#include "kernels/twin/outputs.h"

#include <algorithm>
#include <cstring>

#include "kernels/twin/threads.h"

namespace flexllm::kernels::twin {
namespace {

// Copies a row to card memory and zeroes what is left of its last word.
void store_row(float* out, const float* x, uint32_t n) {
  std::copy_n(x, n, out);
  std::fill(out + n, out + size_t{float_words(n)} * kFloatsPerWord, 0.0f);
}

// The largest logits in descending order, ties by ascending id. Only logits above -infinity enter.
class TopLogits {
 public:
  void offer(float logit, uint32_t id) {
    if (!(logit > threshold_)) return;
    // Ids come in ascending order, so an equal logit goes behind those that are there.
    uint32_t at = count_ < kTopLogits ? count_++ : kTopLogits - 1;
    for (; at > 0 && logit > logits_[at - 1]; --at) {
      logits_[at] = logits_[at - 1];
      ids_[at] = ids_[at - 1];
    }
    logits_[at] = logit;
    ids_[at] = id;
    if (count_ == kTopLogits) threshold_ = logits_[kTopLogits - 1];
  }

  void scan(const float* logits, uint32_t n) {
    for (uint32_t begin = 0; begin < n; begin += kBlock) {
      const uint32_t end = std::min(begin + kBlock, n);
      bool any = false;
      for (uint32_t i = begin; i < end; ++i) any |= logits[i] > threshold_;
      if (!any) continue;
      for (uint32_t i = begin; i < end; ++i) offer(logits[i], i);
    }
  }

  void store(uint32_t* out) const {
    for (uint32_t i = 0; i < kTopLogits; ++i) {
      out[i] = bits_of(i < count_ ? logits_[i] : -kInfinity);
      out[kTopLogits + i] = i < count_ ? ids_[i] : 0xffffffffu;
    }
  }

  float max() const { return count_ > 0 ? logits_[0] : -kInfinity; }
  uint32_t argmax() const { return count_ > 0 ? ids_[0] : 0; }

 private:
  static constexpr uint32_t kBlock = 64;
  uint32_t count_ = 0;
  float threshold_ = -kInfinity;
  float logits_[kTopLogits] = {};
  uint32_t ids_[kTopLogits] = {};
};

void write_row_result(const RowRecord& row, const Ops& ops, uint32_t vocab) {
  TopLogits top;
  top.scan(row.logits, vocab);
  const float max = top.max() + 0.0f;
  const float log_sum_exp = max + log_from_one(ops.sum_exp(row.logits, vocab, max));
  const bool wants_target = (row.flags & row_flag::target_logprob) != 0;
  const float target = wants_target ? row.logits[row.target] - log_sum_exp : 0.0f;

  std::fill_n(row.row_result, result_field::fields, 0u);
  row.row_result[result_field::argmax] = top.argmax();
  row.row_result[result_field::max] = bits_of(max);
  row.row_result[result_field::log_sum_exp] = bits_of(log_sum_exp);
  row.row_result[result_field::target_logprob] = bits_of(target);
  if ((row.flags & row_flag::row_result) != 0) {
    top.store(row.row_result + result_field::fields);
  }
}

void write_logits(const LaunchView& launch, const Ops& ops, const QuantizedRows& input,
                  const std::vector<const RowRecord*>& rows) {
  const Matrix& matrix = launch.model.lm_head;
  parallel_for(matrix.tiles, [&](size_t t) {
    thread_local std::vector<float> y;
    y.resize(rows.size() * kTileRows);
    ops.linear_tile(resolve_tile(launch, matrix, static_cast<uint32_t>(t)), input.view(), y.data(),
                    kTileRows);
    for (size_t r = 0; r < rows.size(); ++r) {
      std::copy_n(y.data() + r * kTileRows, kTileRows, rows[r]->logits + t * kTileRows);
    }
  });
}

}  // namespace

void write_outputs(const LaunchView& launch, const Ops& ops, const Rows& x) {
  const Model& model = launch.model;
  std::vector<const RowRecord*> logits_rows;
  for (const RowRecord& row : launch.rows) {
    if ((row.flags & row_flag::needs_logits) != 0) logits_rows.push_back(&row);
  }
  QuantizedRows quantized(static_cast<uint32_t>(logits_rows.size()), model.hidden);
  std::vector<float> h(model.hidden);
  uint32_t next = 0;
  for (size_t i = 0; i < launch.rows.size(); ++i) {
    const RowRecord& row = launch.rows[i];
    if (row.residual != nullptr) store_row(row.residual, x[i], model.hidden);
    const bool wants_logits = (row.flags & row_flag::needs_logits) != 0;
    if (row.final_norm == nullptr && !wants_logits) continue;
    ops.rms_norm(x[i], model.final_norm, model.hidden, model.rms_eps, h.data());
    if (row.final_norm != nullptr) store_row(row.final_norm, h.data(), model.hidden);
    if (wants_logits) {
      quantized.set(ops, next++, h.data(), model.lm_head.layout.precision.grid());
    }
  }
  if (logits_rows.empty()) return;
  write_logits(launch, ops, quantized, logits_rows);
  parallel_for(logits_rows.size(),
               [&](size_t i) { write_row_result(*logits_rows[i], ops, model.vocab); });
}

}  // namespace flexllm::kernels::twin
