// Row movers: who takes part in a stage, input rows and residuals from scratch, constants from the
// model buffer, and the one writer of scratch. Each buffer has one reading and one writing task in
// a region.
#pragma once

#include "kernels/hls/memory.h"
#include "kernels/modules/types.h"

namespace flexllm {
namespace kernels {

inline RowInfo unpack_row(const Word& word, uint32_t row) {
  RowInfo info;
  info.row = row;
  info.sequence = get_lane(word, row_field::sequence);
  info.position = get_lane(word, row_field::position);
  info.flags = get_lane(word, row_field::flags);
  info.target = get_lane(word, row_field::target);
  info.residual = get_lane(word, row_field::residual);
  info.final_norm = get_lane(word, row_field::final_norm);
  info.row_result = get_lane(word, row_field::row_result);
  info.logits_slot = get_lane(word, row_field::logits_slot);
  info.page = 0;
  return info;
}

inline uint32_t page_id(const Word* desc, const LaunchInfo& launch, uint32_t sequence,
                        uint32_t page) {
  const uint32_t word =
      launch.page_tables + sequence * launch.page_table_stride + page / kFieldsPerWord;
  return get_lane(read_word(desc, word), page % kFieldsPerWord);
}

// The rows of the launch with a flag of `flags` (0: every row) to three readers.
//   K     shape
// Cycles: rows.
template <typename K>
void list_rows(const Word* desc, const LaunchInfo launch, uint32_t flags, Stream<RowInfo>& first,
               Stream<RowInfo>& second, Stream<RowInfo>& third) {
  for (uint32_t row = 0; row < launch.rows; ++row) {
    HLS_TRIPS(1, K::rows)
    HLS_PIPELINE(1)
    const RowInfo info = unpack_row(read_word(desc, launch.row_table + row), row);
    if (flags != 0 && (info.flags & flags) == 0) continue;
    first.write(info);
    second.write(info);
    third.write(info);
  }
}

// Sends `words` words of a buffer. Cycles: one per word.
inline void send_words(const Word* buffer, uint32_t from, uint32_t words, Stream<Word>& out) {
  for (uint32_t w = 0; w < words; ++w) {
    HLS_TRIPS(1, 1 << 20)
    HLS_PIPELINE(1)
    out.write(read_word(buffer, from + w));
  }
}

// What a linear stage needs from the host, in the order in which it is wanted: the gain of its
// norm; for q, k, v the gains of the head norms; then the rows that take part, for q, k, v each
// with the page that its position lies in; then their RoPE rows. Descriptor and model share a port,
// so one task reads both.
//   K     shape
// Cycles: one per word, in loops that wait once for the memory each; rows of the launch, rows that
// take part (a page table's word each for q, k, v), and the words of gains and RoPE rows.
template <typename K>
void list_stage(const Word* desc, const Word* model, const LaunchInfo launch, const ModelInfo info,
                const Stage stage, Stream<RowInfo>& first, Stream<RowInfo>& second,
                Stream<Word>& gains, Stream<Word>& head_gains, Stream<Word>& rope) {
  const uint32_t head_words = float_words(info.head_dim);
  const bool heads = stage.kind == kQkv;
  const uint32_t flags = stage.kind == kLmHead ? row_flag::needs_logits : 0u;
  if (stage.normalized()) send_words(model, stage.gain, float_words(stage.inputs), gains);
  if (heads && stage.q_norm != 0) send_words(model, stage.q_norm, head_words, head_gains);
  if (heads && stage.k_norm != 0) send_words(model, stage.k_norm, head_words, head_gains);
  RowInfo listed[K::rows];
  uint32_t count = 0;
  for (uint32_t row = 0; row < launch.rows; ++row) {
    HLS_TRIPS(1, K::rows)
    HLS_PIPELINE(1)
    const RowInfo read = unpack_row(read_word(desc, launch.row_table + row), row);
    listed[count] = read;
    if (flags == 0 || (read.flags & flags) != 0) ++count;
  }
  for (uint32_t i = 0; i < count; ++i) {
    HLS_TRIPS(1, K::rows)
    HLS_PIPELINE(1)
    RowInfo row = listed[i];
    if (heads) row.page = page_id(desc, launch, row.sequence, row.position / kPageTokens);
    first.write(row);
    second.write(row);
  }
  uint32_t row = 0;
  uint32_t w = 0;
  for (uint32_t i = 0; heads && i < count * head_words; ++i) {
    HLS_TRIPS(1, K::rows * float_words(K::head_dim))
    HLS_PIPELINE(1)
    rope.write(read_word(model, info.rope + listed[row].position * head_words + w));
    ++w;
    if (w == head_words) {
      w = 0;
      ++row;
    }
  }
}

// Reads the words that output tiles are added to, in the order in which the tiles come.
//   K     shape
// Cycles: two per tile and row.
template <typename K>
inline void read_residuals(const Word* scratch, const Stage& stage, Stream<Word>& residuals) {
  const uint32_t words = stage.result_words();
  TileOrder at = TileOrder::first();
  for (uint32_t i = 0; stage.residual_added() && i < 2 * stage.tiles * stage.rows; ++i) {
    HLS_TRIPS(1, 2 * row_tiles(K::hidden) * K::rows)
    HLS_PIPELINE(1)
    const uint32_t word = 2 * at.tile + i % 2;
    if (word < words) {
      residuals.write(read_word(scratch, stage.residual + at.row * words + word));
    }
    if (i % 2 == 1) at.advance<K::arrays>(stage);
  }
}

// Reads what a stage needs of scratch: its input rows, as listed, then its residuals.
//   K     shape
// Cycles: one per word.
template <typename K>
void read_listed(const Word* scratch, const Stage stage, Stream<RowInfo>& rows,
                 Stream<Word>& inputs, Stream<Word>& residuals) {
  const uint32_t words = float_words(stage.inputs);
  uint32_t at = 0;
  uint32_t w = 0;  // of the row
  for (uint32_t i = 0; i < stage.rows * words; ++i) {
    HLS_TRIPS(1, K::rows * float_words(K::ffn))
    HLS_PIPELINE(1)
    if (w == 0) at = stage.input + rows.read().row * words;
    inputs.write(read_word(scratch, at + w));
    w = w + 1 == words ? 0 : w + 1;
  }
  read_residuals<K>(scratch, stage, residuals);
}

// The same for all rows of the launch.
template <typename K>
void read_all(const Word* scratch, const Stage stage, Stream<Word>& inputs,
              Stream<Word>& residuals) {
  for (uint32_t w = 0; w < stage.rows * float_words(stage.inputs); ++w) {
    HLS_TRIPS(1, K::rows * float_words(K::ffn))
    HLS_PIPELINE(1)
    inputs.write(read_word(scratch, stage.input + w));
  }
  read_residuals<K>(scratch, stage, residuals);
}

// Sends the listed rows to the module that stores the stage's outputs by them, if it has one.
// Cycles: one per row.
template <typename K>
void route_rows(const Stage stage, Stream<RowInfo>& rows, Stream<RowInfo>& pages,
                Stream<RowInfo>& logits) {
  for (uint32_t i = 0; i < stage.rows; ++i) {
    HLS_TRIPS(1, K::rows)
    HLS_PIPELINE(1)
    const RowInfo row = rows.read();
    if (stage.kind == kQkv) pages.write(row);
    if (stage.kind == kLmHead) logits.write(row);
  }
}

// Sends output tiles on to the module that handles the stage's kind.
// Cycles: one per tile and row.
template <typename K>
void route_tiles(const Stage stage, Stream<TileValues>& tiles, Stream<TileValues>& heads,
                 Stream<TileValues>& sums, Stream<TileValues>& gates, Stream<TileValues>& logits) {
  for (uint32_t i = 0; i < stage.tiles * stage.rows; ++i) {
    HLS_TRIPS(1, row_tiles(K::vocab) * K::rows)
    HLS_PIPELINE(1)
    const TileValues values = tiles.read();
    switch (stage.kind) {
      case kQkv:
        heads.write(values);
        break;
      case kOutput:
      case kDown:
        sums.write(values);
        break;
      case kGateUp:
        gates.write(values);
        break;
      case kLmHead:
        logits.write(values);
        break;
    }
  }
}

// Writes `words` words of a buffer. Cycles: one per word.
inline void write_words(Word* buffer, uint32_t to, uint32_t words, Stream<Word>& in) {
  for (uint32_t w = 0; w < words; ++w) {
    HLS_TRIPS(1, 1 << 20)
    HLS_PIPELINE(1)
    write_word(buffer, to + w, in.read());
  }
}

// Writes stores until their end. Cycles: one per word.
inline void write_stores(Word* scratch, Stream<Store>& stores) {
  for (Store store = stores.read(); !store.last; store = stores.read()) {
    HLS_TRIPS(1, 1 << 20)
    HLS_PIPELINE(1)
    write_word(scratch, store.address, store.data);
  }
}

// The stores of the module that handles the stage's kind. Cycles: one per word.
inline void merge_stores(const Stage stage, Stream<Store>& queries, Stream<Store>& sums,
                         Stream<Store>& gates, Stream<Store>& logits, Stream<Store>& out) {
  bool last = false;
  while (!last) {
    HLS_TRIPS(1, 1 << 20)
    HLS_PIPELINE(1)
    const Store store = stage.kind == kQkv       ? queries.read()
                        : stage.residual_added() ? sums.read()
                        : stage.kind == kGateUp  ? gates.read()
                                                 : logits.read();
    out.write(store);
    last = store.last;
  }
}

}  // namespace kernels
}  // namespace flexllm
