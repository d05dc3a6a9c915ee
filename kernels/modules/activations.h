// Quantised rows, kept on chip and sent to all arrays in step with their weight words.
#pragma once

#include "kernels/hls/latency.h"
#include "kernels/modules/types.h"

namespace flexllm {
namespace kernels {

// Whether the next step of the fill of a panel is due. Steps are spread evenly over the time in
// which the panel before is sent, behind its second eighth and before its last: its residuals may
// be read first, no module in front has to be faster than that, and sending need not wait.
struct PanelFill {
  uint32_t steps;   // of a whole panel
  uint32_t spread;  // words of 5/8 of a whole panel, as they are sent
  uint32_t wait;    // words until the first step
  uint32_t left;    // steps of this panel
  uint32_t credit;

  bool due(bool sends) {
    if (left == 0) return false;
    if (!sends) return true;
    if (wait > 0) {
      --wait;
      return false;
    }
    credit += steps;
    if (credit < spread) return false;
    credit -= spread;
    return true;
  }
};

// Collects the quantised rows of a stage by panels, 16 inputs of a row a step. A panel is sent once
// for every pass over the arrays and every weight plane, while the next comes in: an activation
// word holds 4 consecutive inputs, lane r those of row r, the shape of a plane word turned round.
// Behind each group, in the first plane, the sums of q of its inputs go their own way, a lane a
// row.
//   K          shape
//   MaxInputs  largest number of inputs of a matrix
// Cycles, in one loop: rows * ceil(inputs / 16) to fill the first panel; then for each panel
// ceil(tiles / arrays) * blocks * weight planes * inputs / 4, as the arrays take them, or the fill
// of the next if that is longer. Memory: as many panels as are kept, of rows (rounded up to 16) *
// MaxInputs bytes of URAM, as 2 x 16 banks of 64 bits: a fill step writes two banks of one row, a
// read takes one of each row.
template <typename K, uint32_t MaxInputs, typename Words, typename Sums>
void feed_activations(const Stage stage, Stream<Word>& rows, Words (&out)[K::arrays],
                      Sums (&q_sums)[K::arrays]) {
  constexpr uint32_t kQuads = divide_up(MaxInputs, 4 * kInputsPerWord);  // of activation words
  constexpr uint32_t kPanelQuads = divide_up(Panels<K>::rows, kBlockRows) * kQuads;
  constexpr uint32_t kQuadsPerWord = kBytesPerWord / (4 * kInputsPerWord);
  uint64_t kept[2][kBlockRows][Panels<K>::kept * kPanelQuads];  // low half: the even word of two
  HLS_PARTITION(kept, 1)
  HLS_PARTITION(kept, 2)
  HLS_URAM(kept)
  const uint32_t words = stage.inputs / kInputsPerWord;
  const uint32_t quads = divide_up(words, 4);
  const uint32_t planes = Precision::decode(stage.precision).weight_planes;
  // Words of a whole panel that are sent.
  const uint32_t sent =
      divide_up(stage.tiles, K::arrays) * planes * words * divide_up(Panels<K>::rows, kBlockRows);
  uint32_t sums[kBlockRows];  // of the inputs of a group
  HLS_PARTITION(sums, 0)
  HLS_UNROLL_AHEAD
  for (uint32_t r = 0; r < kBlockRows; ++r) {
    HLS_UNROLL
    sums[r] = 0;
  }

  uint32_t fill_panel = 0;  // first row of the panel that comes in
  uint32_t fill_row = 0;    // of it
  uint32_t fill_quad = 0;
  uint32_t fill_at = 0;  // of its block
  Word q = zero_word();
  PanelFill fill = {Panels<K>::rows * quads, sent / 8 * 5, 0,
                    stage.rows_of_panel(0, Panels<K>::rows) * quads, 0};

  uint32_t send_rows = 0;  // of the panel that is sent; 0: none is
  uint32_t send_bank = Panels<K>::kept - 1;
  uint32_t pass = 0;
  uint32_t block = 0;  // its first row in the panel
  uint32_t plane = 0;
  uint32_t word = 0;
  uint32_t send_at = 0;  // of the block
  while (fill.left > 0 || send_rows > 0) {
    HLS_TRIPS(1, divide_up(row_tiles(K::vocab), K::arrays) * 4 * kQuads)
    HLS_PIPELINE(1)
    HLS_DEPTH(latency::chip_read + 2)
    const bool sends = send_rows > 0;
    if (fill.due(sends)) {
      if (fill_quad % kQuadsPerWord == 0) q = rows.read();
      const uint32_t bank = Panels<K>::kept == 1 ? 0 : 1 - send_bank;
      HLS_UNROLL_AHEAD
      for (uint32_t pair = 0; pair < 2; ++pair) {
        HLS_UNROLL
        const uint32_t lane = 4 * (fill_quad % kQuadsPerWord) + 2 * pair;
        kept[pair][fill_row % kBlockRows][bank * kPanelQuads + fill_at + fill_quad] =
            get_lane(q, lane) | static_cast<uint64_t>(get_lane(q, lane + 1)) << 32;
      }
      --fill.left;
      if (++fill_quad == quads) {
        fill_quad = 0;
        ++fill_row;
        if (fill_row % kBlockRows == 0) fill_at += quads;
      }
    }
    if (sends) {
      Word inputs = zero_word();
      Word group = zero_word();
      HLS_UNROLL_AHEAD
      for (uint32_t r = 0; r < kBlockRows; ++r) {
        HLS_UNROLL
        const uint64_t two = kept[word / 2 % 2][r][send_bank * kPanelQuads + send_at + word / 4];
        const uint32_t four =
            block + r < send_rows ? static_cast<uint32_t>(word % 2 == 0 ? two : two >> 32) : 0;
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
      if (++word == words) {
        word = 0;
        if (++plane == planes) {
          plane = 0;
          send_at += quads;
          block += kBlockRows;
          if (block >= send_rows) {
            block = 0;
            send_at = 0;
            pass += K::arrays;
            if (pass >= stage.tiles) send_rows = 0;
          }
        }
      }
    }
    if (send_rows == 0 && fill.left == 0 && fill_row > 0) {
      send_rows = fill_row;
      send_bank = Panels<K>::kept == 1 ? 0 : 1 - send_bank;
      pass = 0;
      fill_panel += fill_row;
      fill_row = 0;
      fill_at = 0;
      fill.left = stage.rows_of_panel(fill_panel, Panels<K>::rows) * quads;
      fill.wait = sent / 4;
      fill.credit = 0;
    }
  }
}

}  // namespace kernels
}  // namespace flexllm
