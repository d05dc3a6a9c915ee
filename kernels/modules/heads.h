// q, k and v on their way from the tiles of qkv to scratch and to the pages (docs/numerics.md,
// section 5, steps 1 to 3). Heads are multiples of 8 floats: half a word.
#pragma once

#include "kernels/hls/latency.h"
#include "kernels/modules/norm.h"
#include "kernels/modules/quantize.h"
#include "kernels/modules/rope.h"
#include "kernels/modules/types.h"

namespace flexllm {
namespace kernels {

constexpr uint32_t kFloatsPerHalf = kFloatsPerWord / 2;
constexpr uint32_t kHeadInterval = 2;  // cycles a word of a head: 8 lanes of arithmetic
constexpr uint32_t kHeadTags = 32;     // heads under way in a chain of modules

// Half a word in the low lanes, zero above.
inline Word low_half(const Word& word, bool upper) {
  Word out = zero_word();
  HLS_UNROLL_AHEAD
  for (uint32_t i = 0; i < kFloatsPerHalf; ++i) {
    HLS_UNROLL
    set_lane(out, i, get_lane(word, upper ? kFloatsPerHalf + i : i));
  }
  return out;
}

// The low halves of two words as one.
inline Word join_halves(const Word& low, const Word& high) {
  Word out = low;
  HLS_UNROLL_AHEAD
  for (uint32_t i = 0; i < kFloatsPerHalf; ++i) {
    HLS_UNROLL
    set_lane(out, kFloatsPerHalf + i, get_lane(high, i));
  }
  return out;
}

// A place in the heads of a row: which head, and how many half words of it lie in front.
struct OutputPlace {
  uint32_t head;
  uint32_t half;

  void advance(uint32_t halves, uint32_t head_halves) {
    half += halves;
    if (half >= head_halves) {
      half = 0;
      ++head;
    }
  }
};

// Gathers the outputs of each row into heads and sends a head as soon as it is complete. For each
// row heads come in ascending order: q, then k, then v. Behind the last float of a head are zeros.
//   K     shape
// Cycles: 2 per tile and row, and ceil(head_dim / 16) for each head that is sent: 16 outputs in two
// cycles. Where head_dim is not a multiple of 16, up to 4 per tile and row.
// Memory: panel rows * head_dim floats.
template <typename K>
void assemble_heads(const Stage stage, uint32_t head_dim, Stream<TileValues>& tiles,
                    Stream<HeadTag>& tags, Stream<Word>& words) {
  if (stage.kind != kQkv) return;
  static_assert(K::head_dim % kFloatsPerWord == 0, "heads are built in whole words");
  constexpr uint32_t kTileHalves = kTileRows / kFloatsPerHalf;
  constexpr uint32_t kHeadWords = K::head_dim / kFloatsPerWord;
  const uint32_t head_halves = head_dim / kFloatsPerHalf;
  const uint32_t head_words = float_words(head_dim);
  Word low[Panels<K>::rows * kHeadWords];  // half words, in the low lanes
  Word high[Panels<K>::rows * kHeadWords];

  TileOrder at = TileOrder::first();
  OutputPlace pass_begin = {0, 0};  // of the pass, and of the next half word
  OutputPlace place = {0, 0};
  TileValues tile = {};
  uint32_t part = 0;  // half word of the tile
  uint32_t tile_parts = 0;
  bool sending = false;
  uint32_t sent = 0;
  uint32_t sent_row = 0;
  const uint32_t count = stage.tiles * stage.rows;
  for (uint32_t done = 0; done < count || sending;) {
    HLS_TRIPS(1, 4 * row_tiles((K::heads + 2 * K::kv_heads) * K::head_dim) * K::rows)
    HLS_PIPELINE(1)
    HLS_DEPTH(latency::chip_read)
    if (sending) {
      const uint32_t word = sent_row * kHeadWords + sent;
      const bool half = 2 * sent + 1 == head_halves;
      words.write(join_halves(low[word], half ? zero_word() : high[word]));
      ++sent;
      sending = sent < head_words;
      continue;
    }
    if (part == 0) {
      tile = tiles.read();
      const uint32_t left = (stage.outputs - at.tile * kTileRows) / kFloatsPerHalf;
      tile_parts = left < kTileHalves ? left : kTileHalves;
    }
    // A word if the tile's and the head's words begin here, and the head does not end between.
    const bool whole = part % 2 == 0 && place.half % 2 == 0 && place.half + 1 < head_halves;
    const Word data = half_of(tile, part / 2);
    const Word first = low_half(data, part % 2 == 1);
    const uint32_t word = at.panel_row() * kHeadWords + place.half / 2;
    if (place.half % 2 == 0) low[word] = first;
    if (place.half % 2 == 1) high[word] = first;
    if (whole) high[word] = low_half(data, true);
    const uint32_t taken = whole ? 2 : 1;
    if (place.half + taken == head_halves) {
      tags.write(HeadTag{at.row, place.head});
      sending = true;
      sent = 0;
      sent_row = at.panel_row();
    }
    place.advance(taken, head_halves);
    part += taken;
    if (part < tile_parts) continue;
    part = 0;
    ++done;
    const TileOrder before = at;
    at.advance<K>(stage);
    if (at.panel_begin != before.panel_begin) {
      place = OutputPlace{0, 0};
      pass_begin = place;
    } else if (at.pass_begin != before.pass_begin) {
      pass_begin = place;
    } else if (at.row != before.row) {
      place = pass_begin;
    }
  }
}

// Sends tags on: a chain of modules reads them again. Cycles: one per head.
inline void forward_tags(uint32_t heads, Stream<HeadTag>& in, Stream<HeadTag>& out) {
  for (uint32_t i = 0; i < heads; ++i) {
    HLS_TRIPS(1, 1 << 14)
    HLS_PIPELINE(1)
    HLS_DEPTH(1)
    out.write(in.read());
  }
}

// Norm of the q and of the k heads, where the model has one: their words times the reciprocals and
// the gain. Other heads pass, though each has a reciprocal.
//   K     shape
// Cycles: kHeadInterval * ceil(head_dim / 16) a head; first the gains.
// Memory: 2 * head_dim floats. DSP: 3 * 32 / kHeadInterval.
template <typename K>
void scale_heads(const Stage stage, const ModelInfo info, Stream<Word>& head_gains,
                 Stream<float>& reciprocals, Stream<HeadTag>& tags, Stream<Word>& words,
                 Stream<HeadTag>& out_tags, Stream<Word>& out) {
  const uint32_t head_words = float_words(info.head_dim);
  Word gain[2][K::head_dim / kFloatsPerWord];
  HLS_PARTITION(gain, 1)
  for (uint32_t side = 0; side < 2; ++side) {
    for (uint32_t w = 0; (side == 0 ? stage.q_norm : stage.k_norm) != 0 && w < head_words; ++w) {
      HLS_TRIPS(1, K::head_dim / kFloatsPerWord)
      HLS_PIPELINE(1)
      gain[side][w] = head_gains.read();
    }
  }
  const uint32_t heads = info.heads + 2 * info.kv_heads;
  HeadTag tag = {0, 0};
  float r = 0.0f;
  uint32_t w = 0;
  for (uint32_t i = 0; i < heads * stage.rows * head_words; ++i) {
    HLS_TRIPS(3, (K::heads + 2 * K::kv_heads) * K::rows * (K::head_dim / kFloatsPerWord))
    HLS_PIPELINE(kHeadInterval)
    HLS_DEPTH(latency::chip_read + 2 * latency::multiply)
    if (w == 0) {
      tag = tags.read();
      r = reciprocals.read();
      out_tags.write(tag);
    }
    const Word word = words.read();
    const bool is_query = tag.head < info.heads;
    const bool is_key = !is_query && tag.head < info.heads + info.kv_heads;
    const bool scaled = (is_query && stage.q_norm != 0) || (is_key && stage.k_norm != 0);
    const Word product = apply_gain(word, gain[is_query ? 0 : 1][w], r, w, info.head_dim);
    out.write(scaled ? product : word);
    w = w + 1 == head_words ? 0 : w + 1;
  }
}

// q goes one way, k and v the other. Cycles: one per word.
inline void route_heads(uint32_t heads, uint32_t query_heads, uint32_t head_words,
                        Stream<HeadTag>& tags, Stream<Word>& words, Stream<HeadTag>& query_tags,
                        Stream<Word>& queries, Stream<HeadTag>& kv_tags, Stream<Word>& kv) {
  HeadTag tag = {0, 0};
  uint32_t w = 0;
  for (uint32_t i = 0; i < heads * head_words; ++i) {
    HLS_TRIPS(1, 1 << 18)
    HLS_PIPELINE(1)
    HLS_DEPTH(1)
    const bool begins = w == 0;
    if (begins) tag = tags.read();
    const Word word = words.read();
    if (tag.head < query_heads) {
      if (begins) query_tags.write(tag);
      queries.write(word);
    } else {
      if (begins) kv_tags.write(tag);
      kv.write(word);
    }
    w = w + 1 == head_words ? 0 : w + 1;
  }
}

// The modules of rotate_heads, for a stage of q, k and v.
//   K     shape
// Cycles: as rotate_heads.
template <typename K>
void rotate_qkv(const Stage stage, const ModelInfo info, Stream<Word>& head_gains,
                Stream<Word>& rope, Stream<HeadTag>& tags, Stream<Word>& words,
                Stream<HeadTag>& query_tags, Stream<Word>& queries, Stream<HeadTag>& kv_tags,
                Stream<Word>& kv) {
  constexpr uint32_t kFoldInterval = 8;
  const uint32_t rotated = info.heads + info.kv_heads;
  const uint32_t heads = (rotated + info.kv_heads) * stage.rows;
  const uint32_t head_words = float_words(info.head_dim);
  HLS_DATAFLOW("rotate_heads");
  Fifo<HeadTag, kHeadTags> summed_tags("summed_tags");
  Fifo<Word, kept_words(K::head_dim)> summed("summed");
  Fifo<Word, 2 * kPartialWords> partials("partials");
  Fifo<float, 8> reciprocals("reciprocals");
  Fifo<HeadTag, 4> scaled_tags("scaled_tags");
  Fifo<Word, 16> scaled("scaled");
  Fifo<HeadTag, 4> rotated_tags("rotated_tags");
  Fifo<Word, 16> rotated_words("rotated_words");
  HLS_TASK(forward_tags(heads, tags, summed_tags));
  HLS_TASK(sum_squares<kHeadInterval>(heads, info.head_dim, true, words, summed, partials));
  HLS_TASK(
      fold_squares<kFoldInterval>(heads, info.head_dim, true, info.rms_eps, partials, reciprocals));
  HLS_TASK(scale_heads<K>(stage, info, head_gains, reciprocals, summed_tags, summed, scaled_tags,
                          scaled));
  HLS_TASK(apply_rope<K::rows, K::head_dim, kHeadInterval>(stage.rows, heads, info.head_dim,
                                                           rotated, rope, scaled_tags, scaled,
                                                           rotated_tags, rotated_words));
  HLS_TASK(route_heads(heads, info.heads, head_words, rotated_tags, rotated_words, query_tags,
                       queries, kv_tags, kv));
  HLS_DATAFLOW_END();
}

// Head norms and RoPE on q and k; then q goes one way, k and v the other. A region of its own.
//   K     shape
// Cycles: max(2 * ceil(head_dim / 16), 8) per head, 8 floats a cycle; at first the head gains and
// the RoPE rows, a word a cycle, and the latency of the chain once.
// Memory: (rows + 4) * head_dim floats, and a FIFO of as many words as the sums are behind.
// DSP: 40 for the squares, 16 to fold, 48 to scale, 64 to rotate.
template <typename K>
void rotate_heads(const Stage stage, const ModelInfo info, Stream<Word>& head_gains,
                  Stream<Word>& rope, Stream<HeadTag>& tags, Stream<Word>& words,
                  Stream<HeadTag>& query_tags, Stream<Word>& queries, Stream<HeadTag>& kv_tags,
                  Stream<Word>& kv) {
  if (stage.kind != kQkv) return;
  rotate_qkv<K>(stage, info, head_gains, rope, tags, words, query_tags, queries, kv_tags, kv);
}

// Packs the heads of each row side by side: half a word may wait for the next head of its row.
//   K     shape
// Cycles: head_dim / 8 per head. Memory: panel rows half words.
template <typename K>
void pack_queries(const Stage stage, const ModelInfo info, Stream<HeadTag>& tags,
                  Stream<Word>& words, Stream<Store>& out) {
  if (stage.kind != kQkv) return;
  Word waiting[Panels<K>::rows];  // the last half word of a row's head, in the low lanes
  const uint32_t head_halves = info.head_dim / kFloatsPerHalf;
  const uint32_t row_halves = head_halves * info.heads;
  const uint32_t row_words = float_words(info.attention());
  HeadTag tag = {0, 0};
  Word word = zero_word();
  Word before = zero_word();  // the half word in front
  uint32_t part = 0;          // half word of the head
  uint32_t half = 0;          // of the row
  for (uint32_t i = 0; i < row_halves * stage.rows; ++i) {
    HLS_TRIPS(1, K::heads * K::rows * (K::head_dim / kFloatsPerHalf))
    HLS_PIPELINE(1)
    HLS_DEPTH(latency::dsp)
    if (part == 0) {
      tag = tags.read();
      half = tag.head * head_halves;
    }
    if (part % 2 == 0) word = words.read();
    const Word data = low_half(word, part % 2 == 1);
    const uint32_t panel_row = Panels<K>::row(tag.row);
    const Word front = part == 0 ? waiting[panel_row] : before;
    const bool is_low = half % 2 == 0;
    if (!is_low || half + 1 == row_halves) {
      const uint32_t address = stage.result + tag.row * row_words + half / 2;
      out.write(Store{address, false,
                      is_low ? join_halves(data, zero_word()) : join_halves(front, data)});
    } else if (part + 1 == head_halves) {
      waiting[panel_row] = data;
    }
    before = data;
    ++half;
    part = part + 1 == head_halves ? 0 : part + 1;
  }
  out.write(end_of_stores());
}

// Where the records of a row of the launch go.
struct KvPlace {
  uint32_t port;
  uint32_t arena;
  uint32_t base;  // of the layer's block in the arena
  uint32_t token;
};

// Quantises k and v heads by their scales and sends their records to the ports of their pages:
// keys and values as they come, the scales of a token behind its last value head.
//   K     shape
// Cycles: as quantize_kv. DSP: 3 * 16 / kHeadInterval.
template <typename K, typename Stores>
void write_kv_records(const Stage stage, const ModelInfo info, Stream<RowInfo>& rows,
                      Stream<HeadTag>& tags, Stream<SymmetricScale>& head_scales,
                      Stream<Word>& words, Stores (&out)[K::kv_ports]) {
  constexpr uint32_t kScaleWords = float_words(2 * K::kv_heads);
  constexpr uint32_t kWordsPerRecord = kBytesPerWord / kFloatsPerWord;
  const KvLayout layout = info.kv();
  const uint32_t head_words = float_words(info.head_dim);
  const uint32_t scale_count = 2 * info.kv_heads;
  KvPlace place[K::rows];
  float scales[kFloatsPerWord][Panels<K>::rows * kScaleWords];  // by lane of their word
  HLS_PARTITION(scales, 1)
  for (uint32_t i = 0; i < stage.rows; ++i) {
    HLS_TRIPS(1, K::rows)
    HLS_PIPELINE(1)
    const RowInfo row = rows.read();
    const uint32_t stream = row.page % K::kv_streams;
    place[i].port = stream % K::kv_ports;
    place[i].arena = stream / K::kv_ports;
    place[i].base =
        row.page / K::kv_streams * layout.page_words() + stage.layer * layout.layer_words();
    place[i].token = row.position % kPageTokens;
  }
  HeadTag tag = {0, 0};
  KvPlace to = {0, 0, 0, 0};
  SymmetricScale scale = {0.0f, 0.0f};
  uint32_t at = 0;     // of the head's record, then of the scales'
  uint32_t index = 0;  // of the head: keys, then values
  Word packed = zero_word();
  uint32_t w = 0;
  bool sending_scales = false;
  const uint32_t count = scale_count * stage.rows;
  for (uint32_t done = 0; done < count || sending_scales;) {
    HLS_TRIPS(2, K::rows * (2 * K::kv_heads * (K::head_dim / kFloatsPerWord) + kScaleWords))
    HLS_PIPELINE(kHeadInterval)
    HLS_DEPTH(latency::chip_read + latency::multiply + latency::to_int)
    bool full = true;
    if (sending_scales) {
      packed = zero_word();
      HLS_UNROLL_AHEAD
      for (uint32_t lane = 0; lane < kFloatsPerWord; ++lane) {
        HLS_UNROLL
        const float value = scales[lane][Panels<K>::row(tag.row) * kScaleWords + w];
        if (w * kFloatsPerWord + lane < scale_count) set_float(packed, lane, value);
      }
    } else {
      if (w == 0) {
        tag = tags.read();
        scale = head_scales.read();
        to = place[tag.row];
        index = tag.head - info.heads;
        const bool is_value = index >= info.kv_heads;
        const uint32_t head = is_value ? index - info.kv_heads : index;
        at = to.base + (is_value ? layout.values() : layout.keys()) +
             to.token * layout.token_words() + head * layout.head_words();
        const uint32_t scale_word = Panels<K>::row(tag.row) * kScaleWords + index / kFloatsPerWord;
        HLS_UNROLL_AHEAD
        for (uint32_t lane = 0; lane < kFloatsPerWord; ++lane) {
          HLS_UNROLL
          if (index % kFloatsPerWord == lane) scales[lane][scale_word] = scale.scale;
        }
      }
      const Word word = words.read();
      const uint32_t part = w % kWordsPerRecord;
      if (part == 0) packed = zero_word();
      HLS_UNROLL_AHEAD
      for (uint32_t lane = 0; lane < kFloatsPerWord; ++lane) {
        HLS_UNROLL
        const int32_t q = quantize_signed(get_float(word, lane) * scale.inverse);
        if (w * kFloatsPerWord + lane < info.head_dim) {
          set_byte(packed, part * kFloatsPerWord + lane, static_cast<uint32_t>(q));
        }
      }
      full = part + 1 == kWordsPerRecord || w + 1 == head_words;
    }
    HLS_UNROLL_AHEAD
    for (uint32_t port = 0; port < K::kv_ports; ++port) {
      HLS_UNROLL
      if (full && to.port == port) out[port].write(PageStore{to.arena, at, false, packed});
    }
    if (full) ++at;
    ++w;
    if (w < (sending_scales ? layout.scale_words() : head_words)) continue;
    w = 0;
    if (sending_scales) {
      sending_scales = false;
      continue;
    }
    ++done;
    if (index + 1 == scale_count) {
      sending_scales = true;
      at = to.base + to.token * layout.scale_words();
    }
  }
  HLS_UNROLL_AHEAD
  for (uint32_t port = 0; port < K::kv_ports; ++port) {
    HLS_UNROLL
    out[port].write(PageStore{0, 0, true, zero_word()});
  }
}

// The modules of quantize_kv, for a stage of q, k and v.
//   K     shape
// Cycles: as quantize_kv.
template <typename K, typename Stores>
void quantize_and_write_kv(const Stage stage, const ModelInfo info, Stream<RowInfo>& rows,
                           Stream<HeadTag>& tags, Stream<Word>& words, Stores (&out)[K::kv_ports]) {
  const uint32_t heads = 2 * info.kv_heads * stage.rows;
  HLS_DATAFLOW("quantize_kv");
  Fifo<HeadTag, kHeadTags> scaled_tags("scaled_tags");
  Fifo<Word, static_cast<int>(float_words(K::head_dim) + kScaleDelay)> kept("kept");
  Fifo<SymmetricScale, 8> scales("scales");
  HLS_TASK(forward_tags(heads, tags, scaled_tags));
  HLS_TASK(find_scales<kHeadInterval>(heads, info.head_dim, words, kept, scales));
  HLS_TASK(write_kv_records<K>(stage, info, rows, scaled_tags, scales, kept, out));
  HLS_DATAFLOW_END();
}

// Quantises k and v heads and sends their records to the ports of their pages. A region of its own.
//   K     shape
// Cycles: kHeadInterval * ceil(head_dim / 16) per head, 8 floats a cycle, and kHeadInterval *
// ceil(2 kv_heads / 16) per row; at first one per row.
// Memory: rows * 16 bytes, panel rows * 2 kv_heads floats, and two heads.
// DSP: 24 to quantise, and those of addresses.
template <typename K, typename Stores>
void quantize_kv(const Stage stage, const ModelInfo info, Stream<RowInfo>& rows,
                 Stream<HeadTag>& tags, Stream<Word>& words, Stores (&out)[K::kv_ports]) {
  if (stage.kind != kQkv) return;
  quantize_and_write_kv<K>(stage, info, rows, tags, words, out);
}

}  // namespace kernels
}  // namespace flexllm
