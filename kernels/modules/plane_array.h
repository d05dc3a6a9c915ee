// The integer array of the linear layers: weight planes times activation planes, exact
// (docs/numerics.md, section 4). Two tasks: `multiply_tiles` adds up the products of each group,
// `fold_groups` the groups of each output.
#pragma once

#include "kernels/hls/latency.h"
#include "kernels/hls/storage.h"
#include "kernels/modules/packed_products.h"
#include "kernels/modules/types.h"

namespace flexllm {
namespace kernels {

#if FLEXLLM_HLS_TYPES
typedef ap_uint<18> GroupSum;
#else
typedef uint32_t GroupSum;
#endif
static_assert(kGroupInputs * 255 * 15 < (1u << 18), "a group of u8 by u4 fits a GroupSum");

// One plane of a group: 32 output rows of the token_parallel rows of a step.
template <typename A>
struct GroupSums {
  GroupSum value[A::token_parallel][kTileRows];
};

// What follows from an array's numbers.
template <typename A>
struct ArraySteps {
  static_assert(kBlockRows % A::token_parallel == 0, "a block of rows in whole steps");
  static_assert(kTileRows % A::row_parallel == 0 && A::row_parallel % 2 == 0,
                "the rows of a tile in whole steps of pairs");
  static_assert(kInputsPerWord % A::input_parallel == 0, "the inputs of a word in whole steps");
  static_assert(A::input_parallel <= kFourCascade, "the inputs of a step add up in one cascade");
  static constexpr uint32_t steps = kBlockRows / A::token_parallel;  // of a block of rows
  static constexpr uint32_t fold_lanes = 2 * A::token_parallel;      // sums folded per cycle
  static constexpr uint32_t fold_cycles = kBlockRows;                // of a GroupSums
};

// One cycle of the array: token_parallel x row_parallel sums of input_parallel products of 4-bit
// numbers. Two output rows and two rows of the launch share a DSP.
//   step, r0, i0  first row of the launch (in steps), output row and input
//   shift         4 times the activation plane
//   fresh         the sums start from 0
template <typename A>
inline void multiply_lanes(const Word& weights, const Word& inputs, uint32_t step, uint32_t r0,
                           uint32_t i0, uint32_t shift, bool fresh,
                           GroupSum sums[A::token_parallel][kTileRows]) {
  constexpr uint32_t kPair = A::token_parallel > 1 ? 2 : 1;
  constexpr uint32_t kHalf = A::row_parallel / 2;
  HLS_UNROLL_AHEAD
  for (uint32_t t = 0; t < A::token_parallel; t += kPair) {
    HLS_UNROLL
    const uint32_t lane0 = get_lane(inputs, step * A::token_parallel + t) >> shift;
    const uint32_t lane1 =
        kPair == 2 ? get_lane(inputs, step * A::token_parallel + t + 1) >> shift : 0;
    HLS_UNROLL_AHEAD
    for (uint32_t r = 0; r < kHalf; ++r) {
      HLS_UNROLL
      const uint32_t row0 = r0 + r;
      const uint32_t row1 = r0 + r + kHalf;
      PackedSum products = 0;
      HLS_UNROLL_AHEAD
      for (uint32_t i = 0; i < A::input_parallel; ++i) {
        HLS_UNROLL
        const uint32_t shift0 = 8 * (i0 + i) + (row0 < kTileRows / 2 ? 0 : 4);
        const uint32_t shift1 = 8 * (i0 + i) + (row1 < kTileRows / 2 ? 0 : 4);
        const WideOperand w =
            pack_weights((get_lane(weights, row0 % (kTileRows / 2)) >> shift0) & 15u,
                         (get_lane(weights, row1 % (kTileRows / 2)) >> shift1) & 15u);
        const uint32_t shift_a = 8 * (i0 + i);
        products +=
            multiply_packed(w, pack_inputs((lane0 >> shift_a) & 15u, (lane1 >> shift_a) & 15u));
      }
      HLS_UNROLL_AHEAD
      for (uint32_t field = 0; field < 2 * kPair; ++field) {
        HLS_UNROLL
        // Fields count rows of the launch, then output rows.
        const uint32_t from = kPair == 2 ? field : 2 * field;
        const uint32_t row = from < 2 ? row0 : row1;
        GroupSum& sum = sums[t + from % 2][row];
        const GroupSum before = fresh ? GroupSum(0) : sum;
        sum = before + (GroupSum(four_field(products, from)) << shift);
      }
    }
  }
}

// Where the array is in a panel of rows: of each of its tiles and blocks of rows, the weight
// planes; of each plane the words; of each word the activation planes; of each of these the steps
// of the rows that the block has, and the parts of the words.
template <typename A>
struct ArrayPosition {
  uint32_t tile;
  uint32_t rows_left;  // in the block and behind it
  uint32_t weight_plane;
  uint32_t word;
  uint32_t plane;
  uint32_t step;
  uint32_t r0;
  uint32_t i0;

  static ArrayPosition first(uint32_t tile, uint32_t rows) {
    return ArrayPosition{tile, rows, 0, 0, 0, 0, 0, 0};
  }

  bool begins_word() const { return plane == 0 && step == 0 && r0 == 0 && i0 == 0; }
  bool begins_group() const { return word % kGroupWords == 0 && plane == 0 && i0 == 0; }
  bool ends_group(uint32_t words, uint32_t planes) const {
    return (word % kGroupWords == kGroupWords - 1 || word + 1 == words) && plane + 1 == planes &&
           r0 + A::row_parallel == kTileRows && i0 + A::input_parallel == kInputsPerWord;
  }

  void advance(uint32_t rows, const Precision& precision, uint32_t words, uint32_t arrays) {
    i0 += A::input_parallel;
    if (i0 < kInputsPerWord) return;
    i0 = 0;
    r0 += A::row_parallel;
    if (r0 < kTileRows) return;
    r0 = 0;
    ++step;
    if (step < ArraySteps<A>::steps && step * A::token_parallel < rows_left) return;
    step = 0;
    if (++plane < precision.activation_planes) return;
    plane = 0;
    if (++word < words) return;
    word = 0;
    if (++weight_plane < precision.weight_planes) return;
    weight_plane = 0;
    if (rows_left > kBlockRows) {
      rows_left -= kBlockRows;
      return;
    }
    rows_left = rows;
    tile += arrays;
  }
};

// Multiplies the plane words of an array's tiles by the activation words that come in step with
// them, panel by panel. The sums of a group leave for each step of rows, behind the last word of
// the group.
//   K      shape
//   A      array
//   array  its number: it takes the tiles array, array + arrays, ...
// Cycles: tiles of the array * sum over the blocks of ceil(rows of the block / token_parallel) *
// weight planes * inputs / 4 * activation planes * 32 / row_parallel * 4 / input_parallel, in a
// loop a panel. DSP: token_parallel * row_parallel * input_parallel / 4, twice as many if
// token_parallel is 1. Memory: the 16 x 32 sums of a group in registers.
template <typename K, typename A>
void multiply_tiles(uint32_t array, const Stage stage, Stream<Word>& weights,
                    Stream<Word>& activations, Stream<GroupSums<A>>& out) {
  const Precision precision = Precision::decode(stage.precision);
  const uint32_t words = stage.inputs / kInputsPerWord;
  GroupSum sums[ArraySteps<A>::steps][A::token_parallel][kTileRows];
  HLS_PARTITION(sums, 0)
  Word weight = zero_word();
  Word input = zero_word();
  for (uint32_t panel = 0; panel < stage.rows; panel += Panels<K>::rows) {
    HLS_TRIPS(1, divide_up(K::rows, Panels<K>::rows))
    const uint32_t rows = stage.rows_of_panel(panel, Panels<K>::rows);
    for (ArrayPosition<A> at = ArrayPosition<A>::first(array, rows); at.tile < stage.tiles;
         at.advance(rows, precision, words, K::arrays)) {
      HLS_TRIPS(1, row_tiles(K::vocab) / K::arrays * K::hidden)
      HLS_PIPELINE(1)
      HLS_DEPTH(latency::dsp + A::input_parallel)
      if (at.begins_word()) {
        weight = weights.read();
        input = activations.read();
      }
      multiply_lanes<A>(weight, input, at.step, at.r0, at.i0, 4 * at.plane, at.begins_group(),
                        sums[at.step]);
      if (at.ends_group(words, precision.activation_planes)) {
        GroupSums<A> group;
        HLS_UNROLL_AHEAD
        for (uint32_t t = 0; t < A::token_parallel; ++t) {
          HLS_UNROLL
          HLS_UNROLL_AHEAD
          for (uint32_t r = 0; r < kTileRows; ++r) {
            HLS_UNROLL
            group.value[t][r] = sums[at.step][t][r];
          }
        }
        out.write(group);
      }
    }
  }
}

// Where the fold is in a panel of rows: of each tile, block of rows, weight plane and group, the
// steps of rows; of each of these, lane by lane, the sums of its rows in turn.
template <typename A>
struct FoldPosition {
  uint32_t tile;
  uint32_t rows_left;  // in the block and behind it
  uint32_t plane;
  uint32_t group;
  uint32_t step;
  uint32_t cycle;  // of the GroupSums

  static FoldPosition first(uint32_t tile, uint32_t rows) {
    return FoldPosition{tile, rows, 0, 0, 0, 0};
  }

  static constexpr uint32_t chunks() { return kTileRows / ArraySteps<A>::fold_lanes; }
  uint32_t token() const { return cycle / chunks(); }  // of the step
  uint32_t chunk() const { return cycle % chunks(); }
  uint32_t row() const { return step * A::token_parallel + token(); }  // of the block

  void advance(uint32_t rows, const Precision& precision, uint32_t groups, uint32_t arrays) {
    if (++cycle < ArraySteps<A>::fold_cycles) return;
    cycle = 0;
    ++step;
    if (step < ArraySteps<A>::steps && step * A::token_parallel < rows_left) return;
    step = 0;
    if (++group < groups) return;
    group = 0;
    if (++plane < precision.weight_planes) return;
    plane = 0;
    if (rows_left > kBlockRows) {
      rows_left -= kBlockRows;
      return;
    }
    rows_left = rows;
    tile += arrays;
  }
};

// Folds the sums of the groups into those of the outputs: times the group's multiplier, plane by
// plane; in the first plane the offset of the unsigned weights is taken off with the sums of q.
// The multipliers of a tile come once a panel and are kept for its other planes and blocks of rows.
//   K          shape
//   A          array
//   MaxInputs  largest number of inputs of a matrix
//   q_sums     a word for each block of rows and group, a lane a row
// Cycles: tiles of the array * sum over the blocks of ceil(rows of the block / token_parallel) *
// weight planes * ceil(inputs / 64) * 16, in a loop a panel: never more than the array takes for
// whole groups. DSP: 2 * token_parallel. Memory: 16 x 32 totals of 48 bits in 2 * token_parallel
// banks, ceil(MaxInputs / 128) words of multipliers.
template <typename K, typename A, uint32_t MaxInputs>
void fold_groups(uint32_t array, const Stage stage, Stream<GroupSums<A>>& sums,
                 Stream<Word>& q_sums, Stream<Word>& multipliers, Stream<TileSums>& out) {
  typedef FoldPosition<A> Position;
  constexpr uint32_t kLanes = ArraySteps<A>::fold_lanes;
  constexpr uint32_t kWords = divide_up(divide_up(MaxInputs, kGroupInputs), 2);
  static_assert(static_cast<uint64_t>(MaxInputs) * 255 * 255 * kMaxMultiplier < (1ull << 47),
                "an accumulator of 48 bits holds the sum");
  const Precision precision = Precision::decode(stage.precision);
  const uint32_t groups = divide_up(stage.inputs, kGroupInputs);
  const int32_t offset = precision.weight_offset();
  Word kept[kWords];
  Accumulator totals[kLanes][kBlockRows * kTileRows / kLanes];
  HLS_PARTITION(totals, 1)
  GroupSums<A> group = {};
  HLS_PARTITION(group.value, 0)
  TileSums result = {};
  HLS_PARTITION(result.value, 0)
  Word q_sum = zero_word();
  Word multiplier = zero_word();
  for (uint32_t panel = 0; panel < stage.rows; panel += Panels<K>::rows) {
    HLS_TRIPS(1, divide_up(K::rows, Panels<K>::rows))
    const uint32_t rows = stage.rows_of_panel(panel, Panels<K>::rows);
    for (Position at = Position::first(array, rows); at.tile < stage.tiles;
         at.advance(rows, precision, groups, K::arrays)) {
      HLS_TRIPS(1, row_tiles(K::vocab) / K::arrays * K::hidden)
      HLS_PIPELINE(1)
      HLS_DISTANCE(totals, ArraySteps<A>::fold_cycles)
      HLS_DEPTH(latency::chip_read + latency::dsp + 1)
      if (at.cycle == 0) {
        group = sums.read();
        if (at.step == 0 && at.plane == 0) q_sum = q_sums.read();
        if (at.step == 0 && at.group % 2 == 0 && precision.grouped) {
          if (at.rows_left == rows && at.plane == 0) {
            multiplier = multipliers.read();
            kept[at.group / 2] = multiplier;
          } else {
            multiplier = kept[at.group / 2];
          }
        }
      }
      const uint32_t place = at.row() * Position::chunks() + at.chunk();
      const bool first = at.group == 0 && at.plane == 0;
      const int32_t correction =
          at.plane == 0 ? offset * static_cast<int32_t>(get_lane(q_sum, at.row())) : 0;
      HLS_UNROLL_AHEAD
      for (uint32_t lane = 0; lane < kLanes; ++lane) {
        HLS_UNROLL
        const uint32_t row = at.chunk() * kLanes + lane;
        const int32_t sum = static_cast<int32_t>(group.value[at.token()][row]);
        const uint32_t m =
            precision.grouped ? get_byte(multiplier, at.group % 2 * kTileRows + row) & 63u : 1u;
        const int32_t weighted = static_cast<int32_t>(m) * ((sum << (4 * at.plane)) - correction);
        const Accumulator before = first ? Accumulator(0) : totals[lane][place];
        const Accumulator total = before + weighted;
        totals[lane][place] = total;
        result.value[row] = total;
      }
      if (at.group + 1 == groups && at.plane + 1 == precision.weight_planes &&
          at.chunk() + 1 == Position::chunks() && at.row() < at.rows_left) {
        out.write(result);
      }
    }
  }
}

}  // namespace kernels
}  // namespace flexllm
