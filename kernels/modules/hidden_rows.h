// Hidden states in and out: input rows to the residual stream, residual and final-norm rows to the
// result buffer.
#pragma once

#include "kernels/modules/norm.h"
#include "kernels/modules/rows.h"

namespace flexllm {
namespace kernels {

// Copies the input rows of a launch to the residual rows in scratch.
//   K     shape
// Cycles: words.
template <typename K>
void copy_inputs(const Word* desc, const LaunchInfo launch, uint32_t hidden, Word* scratch,
                 uint32_t residual) {
  for (uint32_t w = 0; w < launch.rows * float_words(hidden); ++w) {
    HLS_TRIPS(1, K::rows * float_words(K::hidden))
    HLS_PIPELINE(1)
    scratch[residual + w] = desc[launch.inputs + w];
  }
}

// What the hidden outputs need from the host: the gain of the final norm, then all rows.
//   K     shape
// Cycles: words.
template <typename K>
void list_hidden(const Word* desc, const Word* model, const LaunchInfo launch, const ModelInfo info,
                 Stream<Word>& gains, Stream<RowInfo>& first, Stream<RowInfo>& second,
                 Stream<RowInfo>& third) {
  send_words(model, info.final_norm, float_words(info.hidden), gains);
  list_rows<K>(desc, launch, 0, first, second, third);
}

// Reads the residual rows that are asked for: a whole row for each of residual and
// final_norm, so that a row in the norm never waits for one beside it.
//   K     shape
// Cycles: words.
template <typename K>
void read_hidden(const Word* scratch, uint32_t rows, uint32_t hidden, uint32_t residual,
                 Stream<RowInfo>& list, Stream<Word>& plain, Stream<Word>& to_norm) {
  const uint32_t words = float_words(hidden);
  for (uint32_t i = 0; i < rows; ++i) {
    HLS_TRIPS(1, K::rows)
    const RowInfo row = list.read();
    for (uint32_t w = 0; (row.flags & row_flag::residual) != 0 && w < words; ++w) {
      HLS_TRIPS(1, float_words(K::hidden))
      HLS_PIPELINE(1)
      plain.write(scratch[residual + row.row * words + w]);
    }
    for (uint32_t w = 0; (row.flags & row_flag::final_norm) != 0 && w < words; ++w) {
      HLS_TRIPS(1, float_words(K::hidden))
      HLS_PIPELINE(1)
      to_norm.write(scratch[residual + row.row * words + w]);
    }
  }
}

// The final norm of the rows that ask for it.
//   MaxSize  largest size
// Cycles: those of normalize_row per row.
template <uint32_t MaxSize>
void normalize_listed(uint32_t rows, uint32_t size, float eps, Stream<RowInfo>& list,
                      Stream<Word>& gains, Stream<Word>& in, Stream<Word>& out) {
  Word gain[MaxSize / kFloatsPerWord];
  read_gain_words<MaxSize>(gains, float_words(size), gain);
  for (uint32_t i = 0; i < rows; ++i) {
    HLS_TRIPS(1, 256)
    if ((list.read().flags & row_flag::final_norm) != 0) {
      normalize_row<MaxSize>(size, eps, gain, in, out);
    }
  }
}

// Writes residual rows, zero behind their end, and final-norm rows.
//   K     shape
// Cycles: words.
template <typename K>
void write_hidden(Word* result, uint32_t rows, uint32_t hidden, Stream<RowInfo>& list,
                  Stream<Word>& plain, Stream<Word>& normalized) {
  const uint32_t words = float_words(hidden);
  for (uint32_t i = 0; i < rows; ++i) {
    HLS_TRIPS(1, K::rows)
    const RowInfo row = list.read();
    for (uint32_t w = 0; (row.flags & row_flag::residual) != 0 && w < words; ++w) {
      HLS_TRIPS(1, float_words(K::hidden))
      HLS_PIPELINE(1)
      Word word = plain.read();
      HLS_UNROLL_AHEAD
      for (uint32_t lane = 0; lane < kFloatsPerWord; ++lane) {
        HLS_UNROLL
        if (w * kFloatsPerWord + lane >= hidden) set_lane(word, lane, 0);
      }
      result[row.residual + w] = word;
    }
    for (uint32_t w = 0; (row.flags & row_flag::final_norm) != 0 && w < words; ++w) {
      HLS_TRIPS(1, float_words(K::hidden))
      HLS_PIPELINE(1)
      result[row.final_norm + w] = normalized.read();
    }
  }
}

}  // namespace kernels
}  // namespace flexllm
