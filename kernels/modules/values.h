// Second half of an attention engine: sums of a port's values, and the output rows from the sums of
// all ports (docs/numerics.md, section 5, step 6).
#pragma once

#include "kernels/hls/latency.h"
#include "kernels/hls/storage.h"
#include "kernels/modules/token_walk.h"

namespace flexllm {
namespace kernels {

// Sums to an output: their total, to float (wider than 32 bits), a multiplication.
constexpr uint32_t kOutputDepth = 2 + 2 * latency::from_int + latency::multiply;

// sum n_t v_t of a port's tokens, for every row, head and element; at the end of a block they leave
// head by head, `drained` side by side, rows that saw no token as zeros.
//   K     shape
// Cycles: per block as TokenWalk with words = token_words and parts = ceil(head_dim / kv_parallel),
// and rows * heads * ceil(head_dim / min(kv_parallel, 16)) to drain.
// Memory: 48 bits for each row, head and element, head_parallel * kv_parallel side by side and
// attention_rows * steps * ceil(head_dim / kv_parallel) deep. A sum is read and written back within
// max(kTokenCycles, steps * parts, words of a token) cycles: no row returns to it sooner. The first
// token writes it instead.
// DSP: head_parallel * kv_parallel.
template <typename K, typename Command>
void accumulate_values(const ModelInfo info, Stream<Command>& commands, Stream<Word>& values,
                       Stream<Numerators<EngineShape<K>::lanes>>& numerators,
                       Stream<LaneSums<EngineShape<K>::drained>>& sums) {
  typedef EngineShape<K> Engine;
  static_assert(static_cast<uint64_t>(K::context) * 65535 * 127 < (1ull << 47),
                "an accumulator of 48 bits holds the sum");
  constexpr uint32_t kSlices = Engine::elements / Engine::drained;
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
  Word value[Engine::pairs][2 * Engine::bank_words];
  HLS_PARTITION(value, 1)
  Accumulator sum[Engine::row_steps * Engine::head_cycles][Engine::lanes][Engine::elements];
  HLS_PARTITION(sum, 2)
  HLS_PARTITION(sum, 3)
  Numerators<Engine::lanes> n = {};
  for (Command block = commands.read(); block.kind != kEndOfBlocks; block = commands.read()) {
    HLS_TRIPS(1, K::rows)
    BankPlace<K> to = BankPlace<K>::first();
    walk.begin(commands);
    while (walk.busy()) {
      HLS_TRIPS(1, K::context * Engine::row_steps * Engine::head_cycles)
      HLS_PIPELINE(1)
      HLS_DISTANCE(sum, kTokenCycles)
      if (walk.loads()) {
        if (walk.word == 0) to = BankPlace<K>::first();
        value[to.bank][to.at(walk.loaded_buffer())] = values.read();
        to.advance(head_words);
      }
      if (walk.works()) {
        if (walk.part == 0) n = numerators.read();
        const uint32_t at = walk.at() * Engine::head_cycles + walk.part;
        Word shared[Engine::pairs];
        HLS_PARTITION(shared, 1)
        pick_words<K>(value, walk.buffer, map.kv_head[walk.step], walk.part / Engine::chunks,
                      shared);
        HLS_UNROLL_AHEAD
        for (uint32_t lane = 0; lane < Engine::lanes; ++lane) {
          HLS_UNROLL
          HLS_UNROLL_AHEAD
          for (uint32_t i = 0; i < Engine::elements; ++i) {
            HLS_UNROLL
            const uint32_t byte = walk.part % Engine::chunks * Engine::elements + i;
            const int32_t product = static_cast<int32_t>(n.value[lane]) *
                                    get_signed_byte(shared[lane / Engine::share], byte);
            sum[at][lane][i] = (walk.first ? Accumulator(0) : sum[at][lane][i]) + product;
          }
        }
      }
      walk.advance(block, commands);
    }
    HLS_LATENCY(latency::chip_read + latency::dsp)
    const uint32_t head_slices = divide_up(info.head_dim, Engine::drained);
    HeadPlace<K> place = HeadPlace<K>::first();
    uint32_t row = 0;
    uint32_t head = 0;
    uint32_t slice = 0;
    for (uint32_t i = 0; i < block.rows * info.heads * head_slices; ++i) {
      HLS_TRIPS(1, K::attention_rows * K::heads * divide_up(K::head_dim, Engine::drained))
      HLS_PIPELINE(1)
      HLS_DEPTH(latency::chip_read)
      const uint32_t at =
          (row * Engine::steps + place.step) * Engine::head_cycles + slice / kSlices;
      const bool seen = walk.seen_by(block, row);
      LaneSums<Engine::drained> out;
      HLS_UNROLL_AHEAD
      for (uint32_t j = 0; j < Engine::drained; ++j) {
        HLS_UNROLL
        const Accumulator cell = sum[at][place.lane][slice % kSlices * Engine::drained + j];
        out.value[j] = seen ? cell : Accumulator(0);
      }
      sums.write(out);
      if (++slice < head_slices) continue;
      slice = 0;
      place.advance(map.group);
      if (++head < info.heads) continue;
      head = 0;
      place = HeadPlace<K>::first();
      ++row;
    }
  }
}

// Adds up the denominators and the sums of all ports, exact in any order, and makes output rows:
// float(sum) * (S / float(denominator)), packed into words. Heads are multiples of half a word, so
// a head may begin in the middle of one.
//   K     shape
// Cycles: per block head_parallel for each row and step, as one divider serves all lanes; then per
// row heads * ceil(head_dim / min(kv_parallel, 16)) + 1.
// DSP: 16 float multipliers.
template <typename K, typename Rows, typename Scales, typename Denominators, typename Sums>
void gather_outputs(const ModelInfo info, Rows& blocks, Scales& largest_scales,
                    Denominators (&denominators)[K::kv_ports], Sums (&sums)[K::kv_ports],
                    Stream<Word>& out) {
  typedef EngineShape<K> Engine;
  constexpr uint32_t kHalf = kFloatsPerWord / 2;
  const uint32_t steps = steps_of<K>(info);
  const uint32_t group = info.heads / info.kv_heads;
  const uint32_t head_slices = divide_up(info.head_dim, Engine::drained);
  float factor[Engine::row_steps][Engine::lanes];
  HLS_PARTITION(factor, 2)
  for (uint32_t rows = blocks.read(); rows > 0; rows = blocks.read()) {
    HLS_TRIPS(1, K::rows)
    uint32_t row = 0;
    uint32_t step = 0;
    for (uint32_t i = 0; i < rows * steps; ++i) {
      HLS_TRIPS(1, Engine::row_steps)
      HLS_PIPELINE(Engine::lanes)
      const LaneFloats<Engine::lanes> largest = largest_scales.read();
      LaneSums<Engine::lanes> sum = denominators[0].read();
      HLS_UNROLL_AHEAD
      for (uint32_t port = 1; port < K::kv_ports; ++port) {
        HLS_UNROLL
        const LaneSums<Engine::lanes> other = denominators[port].read();
        HLS_UNROLL_AHEAD
        for (uint32_t lane = 0; lane < Engine::lanes; ++lane) {
          HLS_UNROLL
          sum.value[lane] += other.value[lane];
        }
      }
      HLS_UNROLL_AHEAD
      for (uint32_t lane = 0; lane < Engine::lanes; ++lane) {
        HLS_UNROLL
        factor[row * Engine::steps + step][lane] = largest.value[lane] / to_float(sum.value[lane]);
      }
      if (++step < steps) continue;
      step = 0;
      ++row;
    }
    HLS_LATENCY(2 * latency::from_int + latency::divide)
    HeadPlace<K> place = HeadPlace<K>::first();
    uint32_t head = 0;
    uint32_t slice = 0;
    uint32_t left = info.head_dim;  // of the head
    bool odd = false;               // half a word waits
    float waiting[kHalf] = {};
    HLS_PARTITION(waiting, 1)
    row = 0;
    for (uint32_t i = 0; i < rows * (info.heads * head_slices + 1); ++i) {
      HLS_TRIPS(1, K::attention_rows * (K::heads * divide_up(K::head_dim, Engine::drained) + 1))
      HLS_PIPELINE(1)
      HLS_DEPTH(kOutputDepth)
      const bool flush = head == info.heads;
      float y[2 * kHalf] = {};
      HLS_PARTITION(y, 1)
      if (!flush) {
        LaneSums<Engine::drained> sum = sums[0].read();
        HLS_UNROLL_AHEAD
        for (uint32_t port = 1; port < K::kv_ports; ++port) {
          HLS_UNROLL
          const LaneSums<Engine::drained> other = sums[port].read();
          HLS_UNROLL_AHEAD
          for (uint32_t j = 0; j < Engine::drained; ++j) {
            HLS_UNROLL
            sum.value[j] += other.value[j];
          }
        }
        HLS_UNROLL_AHEAD
        for (uint32_t j = 0; j < Engine::drained; ++j) {
          HLS_UNROLL
          y[j] = to_float(sum.value[j]) * factor[row * Engine::steps + place.step][place.lane];
        }
      }
      const bool whole = !flush && Engine::drained == kFloatsPerWord && left > kHalf;
      Word word = zero_word();
      HLS_UNROLL_AHEAD
      for (uint32_t j = 0; j < kHalf; ++j) {
        HLS_UNROLL
        set_float(word, j, odd ? waiting[j] : y[j]);
        set_float(word, kHalf + j, odd ? y[j] : y[kHalf + j]);
      }
      if (whole || odd) out.write(word);
      HLS_UNROLL_AHEAD
      for (uint32_t j = 0; j < kHalf; ++j) {
        HLS_UNROLL
        waiting[j] = whole ? y[kHalf + j] : y[j];
      }
      if (flush) {
        odd = false;
        head = 0;
        place = HeadPlace<K>::first();
        ++row;
        continue;
      }
      if (!whole) odd = !odd;
      left -= whole ? 2 * kHalf : kHalf;
      if (++slice < head_slices) continue;
      slice = 0;
      left = info.head_dim;
      place.advance(group);
      ++head;
    }
  }
}

}  // namespace kernels
}  // namespace flexllm
