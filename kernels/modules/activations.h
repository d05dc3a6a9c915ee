// Quantised rows, kept on chip and sent to all arrays in step with their weight words.
#pragma once

#include "kernels/hls/latency.h"
#include "kernels/modules/types.h"

namespace flexllm {
namespace kernels {

// Collects the quantised rows of a stage, 16 inputs of a row a cycle. Then sends them once for
// every pass over the arrays and every weight plane: an activation word holds 4 consecutive inputs,
// lane r those of row r, the shape of a plane word turned round. Behind each group, in the first
// plane, the sums of q of its inputs go their own way, a lane a row.
//   K          shape
//   MaxInputs  largest number of inputs of a matrix
// Cycles: rows * ceil(inputs / 16) to fill; then ceil(tiles / arrays) * blocks * weight planes *
// inputs / 4, in one loop, as the arrays take them. Memory: rows (rounded up to 16) * MaxInputs
// bytes of URAM, as 2 x 16 banks of 64 bits: the fill writes two banks of one row, a read takes one
// of each row.
template <typename K, uint32_t MaxInputs, typename Words, typename Sums>
void feed_activations(const Stage stage, Stream<Word>& rows, Words (&out)[K::arrays],
                      Sums (&q_sums)[K::arrays]) {
  constexpr uint32_t kBlocks = divide_up(K::rows, kBlockRows);
  constexpr uint32_t kQuads = divide_up(MaxInputs, 4 * kInputsPerWord);  // of activation words
  constexpr uint32_t kQuadsPerWord = kBytesPerWord / (4 * kInputsPerWord);
  uint64_t kept[2][kBlockRows][kBlocks * kQuads];  // low half: the even word of two
  HLS_PARTITION(kept, 1)
  HLS_PARTITION(kept, 2)
  HLS_URAM(kept)
  const uint32_t words = stage.inputs / kInputsPerWord;
  const uint32_t quads = divide_up(words, 4);

  uint32_t quad = 0;
  uint32_t base = 0;  // of the block
  Word q = zero_word();
  for (uint32_t row = 0; row < stage.rows;) {
    HLS_TRIPS(1, K::rows * kQuads)
    HLS_PIPELINE(1)
    if (quad % kQuadsPerWord == 0) q = rows.read();
    HLS_UNROLL_AHEAD
    for (uint32_t pair = 0; pair < 2; ++pair) {
      HLS_UNROLL
      const uint32_t lane = 4 * (quad % kQuadsPerWord) + 2 * pair;
      kept[pair][row % kBlockRows][base + quad] =
          get_lane(q, lane) | static_cast<uint64_t>(get_lane(q, lane + 1)) << 32;
    }
    if (++quad == quads) {
      quad = 0;
      ++row;
      if (row % kBlockRows == 0) base += quads;
    }
  }

  const uint32_t planes = Precision::decode(stage.precision).weight_planes;
  uint32_t sums[kBlockRows];  // of the inputs of a group
  HLS_PARTITION(sums, 0)
  HLS_UNROLL_AHEAD
  for (uint32_t r = 0; r < kBlockRows; ++r) {
    HLS_UNROLL
    sums[r] = 0;
  }
  uint32_t block = 0;
  uint32_t plane = 0;
  uint32_t word = 0;
  base = 0;
  for (uint32_t pass = 0; pass < stage.tiles;) {
    HLS_TRIPS(1, divide_up(row_tiles(K::vocab), K::arrays) * 4 * kQuads)
    HLS_PIPELINE(1)
    HLS_DEPTH(latency::chip_read + 2)
    Word inputs = zero_word();
    Word group = zero_word();
    HLS_UNROLL_AHEAD
    for (uint32_t r = 0; r < kBlockRows; ++r) {
      HLS_UNROLL
      const uint64_t two = kept[word / 2 % 2][r][base + word / 4];
      const uint32_t four = r < stage.rows_of_block(block)
                                ? static_cast<uint32_t>(word % 2 == 0 ? two : two >> 32)
                                : 0;
      set_lane(inputs, r, four);
      sums[r] = (word % kGroupWords == 0 ? 0 : sums[r]) + (four & 255u) + (four >> 8 & 255u) +
                (four >> 16 & 255u) + (four >> 24);
      set_lane(group, r, sums[r]);
    }
    const bool ends_group = word % kGroupWords == kGroupWords - 1 || word + 1 == words;
    HLS_UNROLL_AHEAD
    for (uint32_t array = 0; array < K::arrays; ++array) {
      HLS_UNROLL
      if (pass + array < stage.tiles) {
        out[array].write(inputs);
        if (ends_group && plane == 0) q_sums[array].write(group);
      }
    }
    if (++word < words) continue;
    word = 0;
    if (++plane < planes) continue;
    plane = 0;
    base += quads;
    if (++block < stage.blocks()) continue;
    block = 0;
    base = 0;
    pass += K::arrays;
  }
}

}  // namespace kernels
}  // namespace flexllm
