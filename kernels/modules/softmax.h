// Softmax of an attention engine: scores to integer numerators and denominators
// (docs/numerics.md, section 5, step 6).
#pragma once

#include "kernels/hls/latency.h"
#include "kernels/hls/storage.h"
#include "kernels/modules/token_walk.h"

namespace flexllm {
namespace kernels {

// exp: a bound and a rounding, the reduced argument, four steps of Horner, the square's and the
// last terms, the power of two.
constexpr uint32_t kExpDepth = latency::compare + (latency::multiply + 2 * latency::add) +
                               (latency::multiply + 2 * latency::add) +
                               4 * (latency::multiply + latency::add) +
                               (latency::multiply + 2 * latency::add) + latency::multiply;
// Score to numerator: a difference, exp, two multiplications, a quantiser.
constexpr uint32_t kSoftenDepth = latency::chip_read + latency::add + kExpDepth +
                                  2 * latency::multiply + 2 * latency::compare + latency::add;

// Waits for the maxima of a block, then turns the scores of a port into numerators, in the order in
// which they were made. Behind the block the sums of the denominators follow, exact.
//
// The values of a head of 64 elements or more take 64 / kv_parallel cycles or more; a step takes as
// long here, and so many lanes share their arithmetic. (Smaller heads wait for it.)
//   K     shape
// Cycles: per block rows * steps to receive its levels; 64 / kv_parallel for each token, row that
// sees it and step; the depth; rows * steps to send the denominators.
// Memory: for each row and step and lane two floats and a sum, for each step the V scales of a
// token. Sums are read and written back within kTokenCycles.
// DSP: for head_parallel * kv_parallel / 64 lanes, rounded up, each 14 float multipliers and 13
// float adders: exp and two quantisers.
template <typename K, typename Command>
void soften_scores(const ModelInfo info, Stream<Command>& commands,
                   Stream<SoftmaxLevels<EngineShape<K>::lanes>>& levels,
                   Stream<LaneFloats<EngineShape<K>::lanes>>& scores,
                   Stream<LaneFloats<EngineShape<K>::pairs>>& value_scales,
                   Stream<Numerators<EngineShape<K>::lanes>>& numerators,
                   Stream<LaneSums<EngineShape<K>::lanes>>& denominators) {
  typedef EngineShape<K> Engine;
  constexpr uint32_t kLeast = divide_up(kTokenCycles, Engine::chunks);
  const float top = static_cast<float>(info.probability_levels);
  TokenWalk<K> walk;
  walk.words = 0;
  walk.steps = steps_of<K>(info);
  walk.parts = 1;
  walk.least = kLeast;
  SoftmaxLevels<Engine::lanes> level[Engine::row_steps];
  LaneFloats<Engine::pairs> held[Engine::steps];  // V scales of the token
  LaneSums<Engine::lanes> sum[Engine::row_steps];
  for (Command block = commands.read(); block.kind != kEndOfBlocks; block = commands.read()) {
    HLS_TRIPS(1, K::rows)
    uint32_t row = 0;
    uint32_t step = 0;
    for (uint32_t i = 0; i < block.rows * walk.steps; ++i) {
      HLS_TRIPS(1, Engine::row_steps)
      HLS_PIPELINE(1)
      level[row * Engine::steps + step] = levels.read();
      if (++step < walk.steps) continue;
      step = 0;
      ++row;
    }
    HLS_LATENCY(latency::chip_read)
    walk.begin(commands);
    while (walk.busy()) {
      HLS_TRIPS(1, K::context * Engine::row_steps)
      HLS_PIPELINE(Engine::chunks)
      HLS_DISTANCE(sum, kLeast)
      HLS_DEPTH(kSoftenDepth)
      if (walk.works()) {
        const uint32_t at = walk.at();
        const LaneFloats<Engine::lanes> score = scores.read();
        const LaneFloats<Engine::pairs> value_scale =
            walk.at_first_row() ? value_scales.read() : held[walk.step];
        if (walk.at_first_row()) held[walk.step] = value_scale;
        const SoftmaxLevels<Engine::lanes> of = level[at];
        LaneSums<Engine::lanes> denominator = sum[at];
        Numerators<Engine::lanes> out;
        HLS_UNROLL_AHEAD
        for (uint32_t lane = 0; lane < Engine::lanes; ++lane) {
          HLS_UNROLL
          const float e = exp_nonpositive(score.value[lane] - of.largest[lane]);
          const float ratio = value_scale.value[lane / Engine::share] * of.inverse[lane];
          const uint32_t d = quantize_unsigned(e * top, top);
          const uint32_t n = quantize_unsigned((e * ratio) * top, top);
          denominator.value[lane] =
              (walk.first ? Accumulator(0) : denominator.value[lane]) + static_cast<int32_t>(d);
          out.value[lane] = static_cast<uint16_t>(n);
        }
        sum[at] = denominator;
        numerators.write(out);
      }
      walk.advance(block, commands);
    }
    HLS_LATENCY(kSoftenDepth)
    row = 0;
    step = 0;
    for (uint32_t i = 0; i < block.rows * walk.steps; ++i) {
      HLS_TRIPS(1, Engine::row_steps)
      HLS_PIPELINE(1)
      HLS_DEPTH(latency::chip_read)
      LaneSums<Engine::lanes> denominator = sum[row * Engine::steps + step];
      const bool seen = walk.seen_by(block, row);
      HLS_UNROLL_AHEAD
      for (uint32_t lane = 0; lane < Engine::lanes; ++lane) {
        HLS_UNROLL
        if (!seen) denominator.value[lane] = 0;
      }
      denominators.write(denominator);
      if (++step < walk.steps) continue;
      step = 0;
      ++row;
    }
  }
}

}  // namespace kernels
}  // namespace flexllm
