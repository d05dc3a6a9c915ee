// Quantised rows, kept on chip and sent to all arrays in step with their weight words.
#pragma once

#include "kernels/modules/types.h"

namespace flexllm {
namespace kernels {

// Collects the quantised rows of a stage. Word k of a block of 16 rows holds inputs 4 k .. 4 k + 3,
// lane r those of row r: the shape of a plane word, turned round. Then sends them once for every
// pass over the ports and every weight plane; behind each group, in the first plane, the sums of q
// of its inputs, a lane a row.
//   K        shape; the memory is rows * max(hidden, ffn, attention) bytes (URAM), written a lane
//            at a time
// Cycles: rows * inputs / 4 to fill; then as the arrays take them.
template <typename K, uint32_t MaxInputs, typename Streams>
void feed_activations(const Stage stage, Stream<Word>& rows, Streams (&out)[K::weight_ports]) {
  constexpr uint32_t kBlocks = divide_up(K::rows, kBlockRows);
  constexpr uint32_t kWords = MaxInputs / kInputsPerWord;
  constexpr uint32_t kGroups = divide_up(MaxInputs, kGroupInputs);
  Word inputs[kBlocks][kWords];
  Word sums[kBlocks][kGroups];
  HLS_URAM(inputs)
  const uint32_t words = stage.inputs / kInputsPerWord;
  const uint32_t groups = divide_up(stage.inputs, kGroupInputs);
  for (uint32_t row = 0; row < stage.rows; ++row) {
    HLS_TRIPS(1, K::rows)
    const uint32_t block = row / kBlockRows;
    for (uint32_t g = 0; g < groups; ++g) {
      HLS_TRIPS(1, kGroups)
      const Word q = rows.read();
      uint32_t sum = 0;
      HLS_UNROLL_AHEAD
      for (uint32_t i = 0; i < kBytesPerWord; ++i) {
        HLS_UNROLL
        sum += get_byte(q, i);
      }
      set_lane(sums[block][g], row % kBlockRows, sum);
      for (uint32_t k = 0; k < kGroupWords; ++k) {
        HLS_PIPELINE(1)
        const uint32_t word = g * kGroupWords + k;
        if (word < words) set_lane(inputs[block][word], row % kBlockRows, get_lane(q, k));
      }
    }
  }
  const uint32_t planes = Precision::decode(stage.precision).weight_planes;
  for (uint32_t pass = 0; pass < divide_up(stage.tiles, K::weight_ports); ++pass) {
    HLS_TRIPS(1, row_tiles(K::vocab) / K::weight_ports)
    for (uint32_t block = 0; block < stage.blocks(); ++block) {
      HLS_TRIPS(1, kBlocks)
      for (uint32_t plane = 0; plane < planes; ++plane) {
        HLS_TRIPS(1, 2)
        for (uint32_t k = 0; k < words; ++k) {
          HLS_TRIPS(1, kWords)
          HLS_PIPELINE(1)
          const bool ends_group = k % kGroupWords == kGroupWords - 1 || k + 1 == words;
          HLS_UNROLL_AHEAD
          for (uint32_t port = 0; port < K::weight_ports; ++port) {
            HLS_UNROLL
            if (pass * K::weight_ports + port < stage.tiles) {
              out[port].write(inputs[block][k]);
              if (ends_group && plane == 0) out[port].write(sums[block][k / kGroupWords]);
            }
          }
        }
      }
    }
  }
}

}  // namespace kernels
}  // namespace flexllm
