// First half of an attention engine: scores of a port's keys, and the maxima of all ports
// (docs/numerics.md, section 5, steps 5 and 6).
#pragma once

#include "kernels/hls/latency.h"
#include "kernels/hls/storage.h"
#include "kernels/modules/packed_products.h"
#include "kernels/modules/token_walk.h"

namespace flexllm {
namespace kernels {

// Key to score: memory, products and their sum, integer to float, two multiplications.
constexpr uint32_t kScoreDepth =
    latency::chip_read + 2 * latency::dsp + latency::from_int + latency::multiply;
// Maxima to levels: comparisons, a division.
constexpr uint32_t kCombineDepth = 2 * latency::compare + latency::divide;

// Dot products of `Elements` bytes of the queries of lanes that share a key, chunk `chunk` of the
// words.
//   Share     lanes
//   Elements  multiple of 8
// DSP: Elements, whether for one lane or for two: eight packed products add up exactly as one
// factor, the query, is never -128.
template <uint32_t Share, uint32_t Elements>
struct SharedDot;

template <uint32_t Elements>
struct SharedDot<1, Elements> {
  static void run(const Word query[1], const Word& key, uint32_t chunk, int32_t dot[1]) {
    dot[0] = 0;
    HLS_UNROLL_AHEAD
    for (uint32_t i = 0; i < Elements; ++i) {
      HLS_UNROLL
      const uint32_t byte = chunk * Elements + i;
      dot[0] += get_signed_byte(query[0], byte) * get_signed_byte(key, byte);
    }
  }
};

template <uint32_t Elements>
struct SharedDot<2, Elements> {
  static_assert(Elements % kTwoSymmetric == 0, "sums of packed products are whole");
  static_assert(kTwoSymmetric * 127 * 128 < (1u << (kTwoField - 1)), "a field holds the sum");

  static void run(const Word query[2], const Word& key, uint32_t chunk, int32_t dot[2]) {
    dot[0] = 0;
    dot[1] = 0;
    HLS_UNROLL_AHEAD
    for (uint32_t i = 0; i < Elements; i += kTwoSymmetric) {
      HLS_UNROLL
      PackedSum sum = 0;
      HLS_UNROLL_AHEAD
      for (uint32_t j = 0; j < kTwoSymmetric; ++j) {
        HLS_UNROLL
        const uint32_t byte = chunk * Elements + i + j;
        sum += multiply_packed(
            pack_factors(get_signed_byte(query[0], byte), get_signed_byte(query[1], byte)),
            static_cast<NarrowOperand>(get_signed_byte(key, byte)));
      }
      dot[0] += two_low(sum);
      dot[1] += two_high(sum);
    }
  }
};

// a_t of a port's keys, for each token, row that sees it, and step of lanes; in the first pass
// those that are kept, and behind it the maxima of each row; in the second those that were not.
// With the first row of each token goes a V scale for each pair of lanes.
//   K     shape
// Cycles: per block rows * heads * head_words to receive its queries, per pass as TokenWalk with
// words = token_words and parts = ceil(head_dim / kv_parallel), and rows * steps to send the
// maxima. Memory: two tokens' keys in `pairs` banks of words and their scales in 16 banks of
// floats; in a bank for each lane the block's queries, and 3 floats for each row and step. LUTRAM
// at the depths of decode. DSP: head_parallel * kv_parallel, half as many where lanes share a key;
// 3 float multipliers and an integer conversion for each lane.
template <typename K, typename Command>
void score_keys(const ModelInfo info, Stream<Command>& commands, Stream<Word>& queries,
                Stream<float>& factors, Stream<Word>& scales, Stream<Word>& keys,
                Stream<LaneFloats<EngineShape<K>::lanes>>& scores,
                Stream<LaneFloats<EngineShape<K>::pairs>>& value_scales,
                Stream<Maxima<EngineShape<K>::lanes>>& maxima) {
  typedef EngineShape<K> Engine;
  const KvLayout layout = info.kv();
  const uint32_t head_words = layout.head_words();
  LaneMap<K> map;
  HLS_PARTITION(map.kv_head, 2)
  HLS_PARTITION(map.used, 2)
  deal_heads<K>(info, map);
  TokenWalk<K> walk;
  walk.words = layout.token_words();
  walk.steps = map.steps;
  walk.least = kTokenCycles;
  walk.parts = divide_up(info.head_dim, Engine::elements);
  Word query[Engine::lanes][Engine::row_steps * Engine::head_words];
  HLS_PARTITION(query, 1)
  float factor[Engine::lanes][Engine::row_steps];
  HLS_PARTITION(factor, 1)
  Word key[Engine::pairs][2 * Engine::bank_words];
  HLS_PARTITION(key, 1)
  float scale[kFloatsPerWord][2 * Engine::scale_words];
  HLS_PARTITION(scale, 1)
  Maxima<Engine::lanes> best[Engine::row_steps];
  int32_t dot[Engine::lanes] = {};
  HLS_PARTITION(dot, 1)
  for (Command block = commands.read(); block.kind != kEndOfBlocks; block = commands.read()) {
    HLS_TRIPS(1, K::rows)
    HeadPlace<K> place = HeadPlace<K>::first();
    uint32_t row = 0;
    uint32_t head = 0;
    uint32_t word = 0;
    for (uint32_t i = 0; i < block.rows * info.heads * head_words; ++i) {
      HLS_TRIPS(1, K::attention_rows * K::heads * Engine::head_words)
      HLS_PIPELINE(1)
      const uint32_t at = row * Engine::steps + place.step;
      if (word == 0) factor[place.lane][at] = factors.read();
      query[place.lane][at * Engine::head_words + word] = queries.read();
      if (++word < head_words) continue;
      word = 0;
      place.advance(map.group);
      if (++head < info.heads) continue;
      head = 0;
      place = HeadPlace<K>::first();
      ++row;
    }
    HLS_LATENCY(latency::chip_read)
    uint32_t passes = 1;
    for (uint32_t pass = 0; pass < passes; ++pass) {
      HLS_TRIPS(1, 2)
      BankPlace<K> to = BankPlace<K>::first();
      walk.begin(commands);
      while (walk.busy()) {
        HLS_TRIPS(1, K::context * Engine::row_steps * Engine::head_cycles)
        HLS_PIPELINE(1)
        HLS_DISTANCE(best, kTokenCycles)
        HLS_DEPTH(kScoreDepth)
        if (walk.loads()) {
          if (walk.word == 0) to = BankPlace<K>::first();
          key[to.bank][to.at(walk.loaded_buffer())] = keys.read();
          to.advance(head_words);
          if (walk.word < layout.scale_words()) {
            const Word floats = scales.read();
            HLS_UNROLL_AHEAD
            for (uint32_t i = 0; i < kFloatsPerWord; ++i) {
              HLS_UNROLL
              scale[i][walk.loaded_buffer() * Engine::scale_words + walk.word] =
                  get_float(floats, i);
            }
          }
        }
        if (walk.works()) {
          const uint32_t at = walk.at();
          Word shared[Engine::pairs];
          float key_scale[Engine::pairs];
          LaneFloats<Engine::pairs> value_scale;
          HLS_PARTITION(shared, 1)
          HLS_PARTITION(key_scale, 1)
          pick_words<K>(key, walk.buffer, map.kv_head[walk.step], walk.part / Engine::chunks,
                        shared);
          pick_scales<K>(scale, walk.buffer, 0, map.kv_head[walk.step], key_scale);
          pick_scales<K>(scale, walk.buffer, info.kv_heads, map.kv_head[walk.step],
                         value_scale.value);
          LaneFloats<Engine::lanes> out;
          Maxima<Engine::lanes> largest = best[at];
          HLS_UNROLL_AHEAD
          for (uint32_t pair = 0; pair < Engine::pairs; ++pair) {
            HLS_UNROLL
            Word q[Engine::share];
            int32_t part[Engine::share];
            HLS_UNROLL_AHEAD
            for (uint32_t i = 0; i < Engine::share; ++i) {
              HLS_UNROLL
              q[i] = query[pair * Engine::share + i]
                          [at * Engine::head_words + walk.part / Engine::chunks];
            }
            SharedDot<Engine::share, Engine::elements>::run(q, shared[pair],
                                                            walk.part % Engine::chunks, part);
            HLS_UNROLL_AHEAD
            for (uint32_t i = 0; i < Engine::share; ++i) {
              HLS_UNROLL
              const uint32_t lane = pair * Engine::share + i;
              dot[lane] = (walk.part == 0 ? 0 : dot[lane]) + part[i];
              const float step = factor[lane][at] * key_scale[pair];
              const float a = static_cast<float>(dot[lane]) * step;
              out.value[lane] = map.used[walk.step][lane] ? a : 0.0f;
              largest.score[lane] =
                  max_of(out.value[lane], walk.first ? -kInfinity : largest.score[lane]);
              largest.scale[lane] =
                  max_of(value_scale.value[pair], walk.first ? 0.0f : largest.scale[lane]);
            }
          }
          if (walk.at_last_part()) {
            if (pass == 0) best[at] = largest;
            if (pass == 1 || walk.kept) {
              scores.write(out);
              if (walk.at_first_row()) value_scales.write(value_scale);
            }
          }
        }
        walk.advance(block, commands);
      }
      HLS_LATENCY(kScoreDepth + latency::compare)
      if (walk.page.flag) passes = 2;
      uint32_t step = 0;
      row = 0;
      for (uint32_t i = 0; pass == 0 && i < block.rows * map.steps; ++i) {
        HLS_TRIPS(1, Engine::row_steps)
        HLS_PIPELINE(1)
        HLS_DEPTH(latency::chip_read)
        Maxima<Engine::lanes> largest = best[row * Engine::steps + step];
        const bool seen = walk.seen_by(block, row);
        HLS_UNROLL_AHEAD
        for (uint32_t lane = 0; lane < Engine::lanes; ++lane) {
          HLS_UNROLL
          if (!seen) largest.score[lane] = -kInfinity;
          if (!seen) largest.scale[lane] = 0.0f;
        }
        maxima.write(largest);
        if (++step < map.steps) continue;
        step = 0;
        ++row;
      }
    }
  }
}

// The maxima of all ports to every port's softmax, and the largest V scales to the outputs. The
// order does not matter to a maximum.
//   K     shape
// Cycles: per block head_parallel for each row and step, as one divider serves all lanes.
template <typename K, typename Rows, typename MaximaOf, typename Levels, typename Scales>
void combine_maxima(const ModelInfo info, Rows& blocks, MaximaOf (&maxima)[K::kv_ports],
                    Levels (&levels)[K::kv_ports], Scales& largest_scales) {
  typedef EngineShape<K> Engine;
  const uint32_t steps = steps_of<K>(info);
  for (uint32_t rows = blocks.read(); rows > 0; rows = blocks.read()) {
    HLS_TRIPS(1, K::rows)
    for (uint32_t i = 0; i < rows * steps; ++i) {
      HLS_TRIPS(1, Engine::row_steps)
      HLS_PIPELINE(Engine::lanes)
      HLS_DEPTH(kCombineDepth)
      Maxima<Engine::lanes> best = maxima[0].read();
      HLS_UNROLL_AHEAD
      for (uint32_t port = 1; port < K::kv_ports; ++port) {
        HLS_UNROLL
        const Maxima<Engine::lanes> other = maxima[port].read();
        HLS_UNROLL_AHEAD
        for (uint32_t lane = 0; lane < Engine::lanes; ++lane) {
          HLS_UNROLL
          best.score[lane] = max_of(other.score[lane], best.score[lane]);
          best.scale[lane] = max_of(other.scale[lane], best.scale[lane]);
        }
      }
      SoftmaxLevels<Engine::lanes> level;
      LaneFloats<Engine::lanes> largest;
      HLS_UNROLL_AHEAD
      for (uint32_t lane = 0; lane < Engine::lanes; ++lane) {
        HLS_UNROLL
        level.largest[lane] = best.score[lane];
        level.inverse[lane] = best.scale[lane] > 0.0f ? 1.0f / best.scale[lane] : 0.0f;
        largest.value[lane] = best.scale[lane];
      }
      HLS_UNROLL_AHEAD
      for (uint32_t port = 0; port < K::kv_ports; ++port) {
        HLS_UNROLL
        levels[port].write(level);
      }
      largest_scales.write(largest);
    }
  }
}

}  // namespace kernels
}  // namespace flexllm
