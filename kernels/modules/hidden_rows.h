// Hidden states in and out: input rows to the residual stream, residual and final-norm rows to the
// result buffer.
#pragma once

#include "kernels/modules/norm.h"
#include "kernels/modules/rows.h"

namespace flexllm {
namespace kernels {

// Copies the input rows of a launch to the residual rows in scratch.
//   K     shape
// Cycles: one per word.
template <typename K>
void copy_inputs(const Word* desc, const LaunchInfo launch, uint32_t hidden, Word* scratch,
                 uint32_t residual) {
  for (uint32_t w = 0; w < launch.rows * float_words(hidden); ++w) {
    HLS_TRIPS(1, K::rows * float_words(K::hidden))
    HLS_PIPELINE(1)
    write_word(scratch, residual + w, read_word(desc, launch.inputs + w));
  }
}

// What the hidden outputs need from the host: how many rows want the final norm, its gain, then all
// rows.
//   K     shape
// Cycles: one per word: twice the rows of the launch, and the gain.
template <typename K>
void list_hidden(const Word* desc, const Word* model, const LaunchInfo launch, const ModelInfo info,
                 Stream<uint32_t>& normalized, Stream<Word>& gains, Stream<RowInfo>& first,
                 Stream<RowInfo>& second) {
  uint32_t count = 0;
  for (uint32_t row = 0; row < launch.rows; ++row) {
    HLS_TRIPS(1, K::rows)
    HLS_PIPELINE(1)
    const uint32_t flags = unpack_row(read_word(desc, launch.row_table + row), row).flags;
    if ((flags & row_flag::final_norm) != 0) ++count;
  }
  normalized.write(count);
  if (count > 0) send_words(model, info.final_norm, float_words(info.hidden), gains);
  for (uint32_t row = 0; row < launch.rows; ++row) {
    HLS_TRIPS(1, K::rows)
    HLS_PIPELINE(1)
    const RowInfo listed = unpack_row(read_word(desc, launch.row_table + row), row);
    first.write(listed);
    second.write(listed);
  }
}

// Steps through the words of the hidden rows that are asked for: of each listed row the residual,
// then the final norm, then on to the next. A step that holds no word costs a cycle too.
struct HiddenStep {
  bool begins;      // the row is to be read from its list
  bool normalized;  // the words are those of the final norm
  uint32_t word;

  static HiddenStep first() { return HiddenStep{true, false, 0}; }

  bool holds_word(uint32_t flags) const {
    return (flags & (normalized ? row_flag::final_norm : row_flag::residual)) != 0;
  }
  // To the next step; true if it is of another row.
  bool advance(uint32_t flags, uint32_t words) {
    begins = false;
    ++word;
    if (holds_word(flags) && word < words) return false;
    word = 0;
    begins = normalized;
    normalized = !normalized;
    return begins;
  }
};

// Reads the residual rows that are asked for: a whole row for each of residual and
// final_norm, so that a row in the norm never waits for one beside it.
//   K     shape
// Cycles: one per word, and one for each of the two that a row does not ask for.
template <typename K>
void read_hidden(const Word* scratch, uint32_t rows, uint32_t hidden, uint32_t residual,
                 Stream<RowInfo>& list, Stream<Word>& plain, Stream<Word>& to_norm) {
  const uint32_t words = float_words(hidden);
  RowInfo row = {};
  HiddenStep step = HiddenStep::first();
  for (uint32_t done = 0; done < rows;) {
    HLS_TRIPS(2, 2 * K::rows * float_words(K::hidden))
    HLS_PIPELINE(1)
    if (step.begins) row = list.read();
    if (step.holds_word(row.flags)) {
      const Word word = read_word(scratch, residual + row.row * words + step.word);
      if (step.normalized) {
        to_norm.write(word);
      } else {
        plain.write(word);
      }
    }
    if (step.advance(row.flags, words)) ++done;
  }
}

// The final norm of the rows that ask for it.
//   MaxSize   largest size
//   Interval  cycles a word
// Cycles: those of `normalize`, as are memory and DSPs.
template <uint32_t MaxSize, uint32_t Interval>
void normalize_listed(uint32_t size, float eps, Stream<uint32_t>& normalized, Stream<Word>& gains,
                      Stream<Word>& in, Stream<Word>& out) {
  const uint32_t rows = normalized.read();
  normalize<MaxSize, Interval>(rows, size, rows > 0, eps, gains, in, out);
}

// Writes residual rows, zero behind their end, and final-norm rows.
//   K     shape
// Cycles: as read_hidden.
template <typename K>
void write_hidden(Word* result, uint32_t rows, uint32_t hidden, Stream<RowInfo>& list,
                  Stream<Word>& plain, Stream<Word>& normalized) {
  const uint32_t words = float_words(hidden);
  RowInfo row = {};
  HiddenStep step = HiddenStep::first();
  for (uint32_t done = 0; done < rows;) {
    HLS_TRIPS(2, 2 * K::rows * float_words(K::hidden))
    HLS_PIPELINE(1)
    if (step.begins) row = list.read();
    if (step.holds_word(row.flags)) {
      Word word = step.normalized ? normalized.read() : plain.read();
      HLS_UNROLL_AHEAD
      for (uint32_t lane = 0; lane < kFloatsPerWord; ++lane) {
        HLS_UNROLL
        if (step.word * kFloatsPerWord + lane >= hidden) set_lane(word, lane, 0);
      }
      write_word(result, (step.normalized ? row.final_norm : row.residual) + step.word, word);
    }
    if (step.advance(row.flags, words)) ++done;
  }
}

}  // namespace kernels
}  // namespace flexllm
