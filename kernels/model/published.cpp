#include "kernels/model/published.h"

#include <algorithm>
#include <cmath>

#include "kernels/model/latencies.h"

namespace flexllm::kernels::model {
namespace {

double ceil_of(double a, double b) { return std::ceil(a / b); }

}  // namespace

double published_prefill_cycles(const PublishedDesign& design, const ModelShape& m,
                                uint32_t tokens) {
  // An engine takes a block of tp tokens: its inputs once, then every wp outputs all inputs again.
  const auto engine = [](double inputs, double outputs, double wp) {
    return inputs + ceil_of(outputs, wp) * std::max(inputs, wp);
  };
  const double kv = 1.0 * m.kv_heads * m.head_dim;
  const double wp = design.wp_attention;
  const double k_and_q = engine(m.hidden, kv, wp) + engine(m.hidden, m.attention(), wp) - m.hidden;
  const double v_and_o = engine(m.hidden, kv, wp) + engine(m.attention(), m.hidden, wp) - m.hidden;
  const double gate = engine(m.hidden, m.ffn, design.wp_feed_forward);
  const double down = engine(m.ffn, m.hidden, design.wp_feed_forward);
  // The full square, each query head for itself.
  const double attention = 1.0 * m.heads * m.head_dim * ceil_of(tokens, design.prefill_kv);
  const double slowest = std::max({k_and_q, v_and_o, gate, down, attention});
  // k q, scores, softmax, values, o, gate and up, down: blocks in flight when a layer begins.
  const double in_flight = 7;
  return m.layers * (ceil_of(tokens, design.tp) + in_flight) * slowest;
}

double published_decode_cycles(const PublishedDesign& design, const ModelShape& m, double cached) {
  const auto engine = [&](double inputs, double outputs) {
    return inputs / design.bp + ceil_of(outputs, 1.0 * design.bp * design.wp) * inputs + design.wp;
  };
  const double kv = 1.0 * m.kv_heads * m.head_dim;
  const double linear = engine(m.hidden, 2 * kv) + engine(m.hidden, m.attention()) +
                        engine(m.attention(), m.hidden) + 2 * engine(m.hidden, m.ffn) +
                        engine(m.ffn, m.hidden);
  // Serial Hadamard: the rows in, log2(n) stages of 1.5 n, the rows out; bp elements a cycle.
  const double n = m.ffn;
  const double hadamard = (log2_of(m.ffn) * 1.5 * n + 2 * n) / design.bp;
  const double norms = 2 * 3.0 * m.hidden / design.bp;
  const double copies = 2.0 * (m.hidden + m.attention() + m.hidden + m.ffn) / design.bp;
  // Scores, three passes of softmax, values: a pipeline over groups of heads, with K and V read
  // again for each.
  const double products = 1.0 * m.head_dim / design.decode_kv;
  const double softmax = 3;
  const double attention =
      cached * (ceil_of(m.heads, design.heads) * std::max(products, softmax) + 2 * products);
  return m.layers * (linear + hadamard + norms + copies + attention) +
         engine(m.hidden, design.vocab_rows);
}

}  // namespace flexllm::kernels::model
