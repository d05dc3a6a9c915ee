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
//   K       shape
//   read    their numbers, for read_listed: room for all, since it waits for panels
//   listed  their words, for route_rows
// Cycles: one per word, in loops that wait once for the memory each; rows of the launch, rows that
// take part (a page table's word each for q, k, v), and the words of gains and RoPE rows.
template <typename K>
void list_stage(const Word* desc, const Word* model, const LaunchInfo launch, const ModelInfo info,
                const Stage stage, Stream<uint32_t>& read, Stream<RowInfo>& listed,
                Stream<Word>& gains, Stream<Word>& head_gains, Stream<Word>& rope) {
  const uint32_t head_words = float_words(info.head_dim);
  const bool heads = stage.kind == kQkv;
  const uint32_t flags = stage.kind == kLmHead ? row_flag::needs_logits : 0u;
  if (stage.normalized()) send_words(model, stage.gain, float_words(stage.inputs), gains);
  if (heads && stage.q_norm != 0) send_words(model, stage.q_norm, head_words, head_gains);
  if (heads && stage.k_norm != 0) send_words(model, stage.k_norm, head_words, head_gains);
  RowInfo taking_part[K::rows];
  uint32_t count = 0;
  for (uint32_t row = 0; row < launch.rows; ++row) {
    HLS_TRIPS(1, K::rows)
    HLS_PIPELINE(1)
    const RowInfo here = unpack_row(read_word(desc, launch.row_table + row), row);
    taking_part[count] = here;
    if (flags == 0 || (here.flags & flags) != 0) ++count;
  }
  for (uint32_t i = 0; i < count; ++i) {
    HLS_TRIPS(1, K::rows)
    HLS_PIPELINE(1)
    RowInfo row = taking_part[i];
    if (heads) row.page = page_id(desc, launch, row.sequence, row.position / kPageTokens);
    read.write(row.row);
    listed.write(row);
  }
  uint32_t row = 0;
  uint32_t w = 0;
  for (uint32_t i = 0; heads && i < count * head_words; ++i) {
    HLS_TRIPS(1, K::rows * float_words(K::head_dim))
    HLS_PIPELINE(1)
    rope.write(read_word(model, info.rope + taking_part[row].position * head_words + w));
    ++w;
    if (w == head_words) {
      w = 0;
      ++row;
    }
  }
}

// Which word of scratch a stage wants next: of each panel the input rows and the first of the next,
// then, where results are added to what was there, its residual words in the order in which the
// tiles come. The residuals of a panel must find room at once, or the rows of the next panel would
// wait for its results. The row more is there because the Hadamard transform holds the end of a row
// until others follow; the modules behind can keep one.
//   K     shape
template <typename K>
class ReadOrder {
 public:
  explicit ReadOrder(const Stage& stage)
      : words_(float_words(stage.inputs)),
        panel_(0),
        inputs_left_(0),
        residuals_left_(0),
        w_(0),
        at_(TileOrder::first()) {
    begin_panel(stage);
  }

  bool done() const { return inputs_left_ == 0 && residuals_left_ == 0; }
  bool is_input() const { return inputs_left_ > 0; }
  bool begins_row() const { return is_input() && w_ == 0; }
  // Of an input: the word of its row. Of a residual: its row, and the word of that.
  uint32_t input_word() const { return w_; }
  uint32_t row() const { return at_.row; }
  uint32_t residual_word() const { return 2 * at_.tile + (residuals_left_ & 1u); }

  void advance(const Stage& stage) {
    if (inputs_left_ > 0) {
      --inputs_left_;
      w_ = w_ + 1 == words_ ? 0 : w_ + 1;
    } else {
      --residuals_left_;
      if ((residuals_left_ & 1u) == 0) at_.template advance<K>(stage);
    }
    if (done()) {
      panel_ += Panels<K>::rows;
      begin_panel(stage);
    }
  }

 private:
  void begin_panel(const Stage& stage) {
    const uint32_t rows = stage.rows_of_panel(panel_, Panels<K>::rows);
    const uint32_t behind = panel_ + rows < stage.rows ? 1u : 0u;
    const uint32_t before = panel_ > 0 && rows > 0 ? 1u : 0u;
    inputs_left_ = (rows + behind - before) * words_;
    residuals_left_ = stage.residual_added() ? 2 * stage.tiles * rows : 0u;
  }

  uint32_t words_;  // of an input row
  uint32_t panel_;  // its first row
  uint32_t inputs_left_;
  uint32_t residuals_left_;
  uint32_t w_;
  TileOrder at_;
};

// Reads the word that `order` stands at: of the input row at `input`, or a residual.
//   K     shape
// Cycles: one.
template <typename K>
inline void read_ordered(const Word* scratch, const Stage& stage, const ReadOrder<K>& order,
                         uint32_t input, Stream<Word>& inputs, Stream<Word>& residuals) {
  const uint32_t words = stage.result_words();
  if (order.is_input()) {
    inputs.write(read_word(scratch, input + order.input_word()));
  } else if (order.residual_word() < words) {
    residuals.write(
        read_word(scratch, stage.residual + order.row() * words + order.residual_word()));
  }
}

// Reads what a stage needs of scratch in ReadOrder: its input rows, as listed, and its residuals.
//   K     shape
// Cycles: one per word.
template <typename K>
void read_listed(const Word* scratch, const Stage stage, Stream<uint32_t>& rows,
                 Stream<Word>& inputs, Stream<Word>& residuals) {
  uint32_t at = 0;
  for (ReadOrder<K> order(stage); !order.done(); order.advance(stage)) {
    HLS_TRIPS(1, K::rows * float_words(K::ffn))
    HLS_PIPELINE(1)
    if (order.begins_row()) at = stage.input + rows.read() * float_words(stage.inputs);
    read_ordered<K>(scratch, stage, order, at, inputs, residuals);
  }
}

// The same for all rows of the launch, which are one panel: attention, which takes the inputs here,
// may want those of its next rows before it sends the last of a panel.
//   K     shape
// Cycles: one per word.
template <typename K>
void read_all(const Word* scratch, const Stage stage, Stream<Word>& inputs,
              Stream<Word>& residuals) {
  static_assert(Panels<K>::kept == 1, "attention runs ahead of the rows that it sends");
  uint32_t row = 0;
  uint32_t at = 0;
  for (ReadOrder<K> order(stage); !order.done(); order.advance(stage)) {
    HLS_TRIPS(1, K::rows * float_words(K::ffn))
    HLS_PIPELINE(1)
    if (order.begins_row()) {
      at = stage.input + row * float_words(stage.inputs);
      ++row;
    }
    read_ordered<K>(scratch, stage, order, at, inputs, residuals);
  }
}

// Sends the listed rows to the module that stores the stage's outputs by them, if it has one.
//   K     shape
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
//   K     shape
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
