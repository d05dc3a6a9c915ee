// q, k and v on their way from the tiles of qkv to scratch and to the pages (docs/numerics.md,
// section 5, steps 1 to 3).
#pragma once

#include "kernels/modules/norm.h"
#include "kernels/modules/quantize.h"
#include "kernels/modules/types.h"

namespace flexllm {
namespace kernels {

// Gathers the outputs of each row into heads and sends a head as soon as it is complete. For each
// row heads come in ascending order: q, then k, then v.
//   K     shape; rows * head_dim floats on chip
// Cycles: 32 per tile and row.
template <typename K>
void assemble_heads(const Stage stage, uint32_t head_dim, Stream<TileValues>& tiles,
                    Stream<HeadTag>& tags, Stream<Word>& words) {
  if (stage.kind != kQkv) return;
  static_assert(K::head_dim % kFloatsPerWord == 0, "heads are built in whole words");
  Word head[K::rows][K::head_dim / kFloatsPerWord];
  TileOrder at = TileOrder::first();
  for (uint32_t i = 0; i < stage.tiles * stage.rows; ++i) {
    HLS_TRIPS(1, row_tiles((K::heads + 2 * K::kv_heads) * K::head_dim) * K::rows)
    const TileValues tile = tiles.read();
    for (uint32_t r = 0; r < kTileRows; ++r) {
      HLS_PIPELINE(1)
      const uint32_t output = at.tile * kTileRows + r;
      if (output < stage.outputs) {
        const uint32_t element = output % head_dim;
        set_float(head[at.row][element / kFloatsPerWord], element % kFloatsPerWord, tile.value[r]);
        if (element + 1 == head_dim) {
          tags.write(HeadTag{at.row, output / head_dim});
          for (uint32_t w = 0; w < float_words(head_dim); ++w) {
            HLS_TRIPS(1, K::head_dim / kFloatsPerWord)
            HLS_PIPELINE(1)
            words.write(head[at.row][w]);
          }
        }
      }
    }
    at.advance<K::arrays>(stage);
  }
}

// Reads the words of a head into floats.
template <uint32_t MaxDim>
inline void read_head(Stream<Word>& in, uint32_t head_dim, float x[MaxDim]) {
  for (uint32_t w = 0; w < float_words(head_dim); ++w) {
    HLS_TRIPS(1, MaxDim / kFloatsPerWord)
    HLS_PIPELINE(1)
    const Word word = in.read();
    HLS_UNROLL_AHEAD
    for (uint32_t lane = 0; lane < kFloatsPerWord; ++lane) {
      HLS_UNROLL
      x[w * kFloatsPerWord + lane] = get_float(word, lane);
    }
  }
}

template <uint32_t MaxDim>
inline void write_head(const float x[MaxDim], uint32_t head_dim, Stream<Word>& out) {
  for (uint32_t w = 0; w < float_words(head_dim); ++w) {
    HLS_TRIPS(1, MaxDim / kFloatsPerWord)
    HLS_PIPELINE(1)
    Word word = zero_word();
    HLS_UNROLL_AHEAD
    for (uint32_t lane = 0; lane < kFloatsPerWord; ++lane) {
      HLS_UNROLL
      const uint32_t i = w * kFloatsPerWord + lane;
      if (i < head_dim) set_float(word, lane, x[i]);
    }
    out.write(word);
  }
}

// rmsnorm of one head in place.
template <uint32_t MaxDim>
inline void normalize_head(float x[MaxDim], const float gain[MaxDim], uint32_t head_dim,
                           float eps) {
  float partial[kPartialSums] = {};
  HLS_PARTITION(partial, 1)
  for (uint32_t i = 0; i < head_dim; ++i) {
    HLS_TRIPS(8, MaxDim)
    HLS_PIPELINE(1)
    const float square = x[i] * x[i];
    const uint32_t slot = i % static_cast<uint32_t>(kPartialSums);
    partial[slot] = partial[slot] + square;
  }
  const float r = rms_reciprocal(partial, head_dim, eps);
  for (uint32_t i = 0; i < head_dim; ++i) {
    HLS_TRIPS(8, MaxDim)
    HLS_PIPELINE(1)
    const float scaled = x[i] * r;
    x[i] = scaled * gain[i];
  }
}

// Rotates the pairs (i, i + head_dim / 2) by the table row: cosines, then sines.
template <uint32_t MaxDim>
inline void rotate_head(float x[MaxDim], const float table[MaxDim], uint32_t head_dim) {
  const uint32_t half = head_dim / 2;
  for (uint32_t i = 0; i < half; ++i) {
    HLS_TRIPS(4, MaxDim / 2)
    HLS_PIPELINE(1)
    const float low = x[i];
    const float high = x[i + half];
    x[i] = low * table[i] - high * table[half + i];
    x[i + half] = high * table[i] + low * table[half + i];
  }
}

// Head norms and RoPE on q and k; then q goes one way, k and v the other.
//   K     shape; rows * head_dim floats of RoPE tables on chip
// Cycles: per head 2 * ceil(head_dim / 16) + head_dim / 2, and twice head_dim with norms.
template <typename K>
void rotate_heads(const Stage stage, const ModelInfo info, Stream<Word>& head_gains,
                  Stream<Word>& rope, Stream<HeadTag>& tags, Stream<Word>& words,
                  Stream<HeadTag>& query_tags, Stream<Word>& queries, Stream<HeadTag>& kv_tags,
                  Stream<Word>& kv) {
  if (stage.kind != kQkv) return;
  float q_gain[K::head_dim];
  float k_gain[K::head_dim];
  float table[K::rows][K::head_dim];
  if (stage.q_norm != 0) read_head<K::head_dim>(head_gains, info.head_dim, q_gain);
  if (stage.k_norm != 0) read_head<K::head_dim>(head_gains, info.head_dim, k_gain);
  for (uint32_t row = 0; row < stage.rows; ++row) {
    HLS_TRIPS(1, K::rows)
    read_head<K::head_dim>(rope, info.head_dim, table[row]);
  }
  const uint32_t heads = info.heads + 2 * info.kv_heads;
  for (uint32_t i = 0; i < heads * stage.rows; ++i) {
    HLS_TRIPS(3, (K::heads + 2 * K::kv_heads) * K::rows)
    const HeadTag tag = tags.read();
    float x[K::head_dim];
    read_head<K::head_dim>(words, info.head_dim, x);
    const bool is_query = tag.head < info.heads;
    const bool is_key = !is_query && tag.head < info.heads + info.kv_heads;
    if (is_query && stage.q_norm != 0) {
      normalize_head<K::head_dim>(x, q_gain, info.head_dim, info.rms_eps);
    }
    if (is_key && stage.k_norm != 0) {
      normalize_head<K::head_dim>(x, k_gain, info.head_dim, info.rms_eps);
    }
    if (is_query || is_key) rotate_head<K::head_dim>(x, table[tag.row], info.head_dim);
    if (is_query) {
      query_tags.write(tag);
      write_head<K::head_dim>(x, info.head_dim, queries);
    } else {
      kv_tags.write(tag);
      write_head<K::head_dim>(x, info.head_dim, kv);
    }
  }
}

// Packs the heads of each row side by side. A head is a multiple of 8 floats: half a word may wait
// for the next head of its row.
//   K     shape
// Cycles: head_dim / 8 per head.
template <typename K>
void pack_queries(const Stage stage, const ModelInfo info, Stream<HeadTag>& tags,
                  Stream<Word>& words, Stream<Store>& out) {
  if (stage.kind != kQkv) return;
  constexpr uint32_t kHalf = kFloatsPerWord / 2;
  Word pending[K::rows];
  const uint32_t halves_per_head = info.head_dim / kHalf;
  const uint32_t halves_per_row = halves_per_head * info.heads;
  const uint32_t row_words = float_words(info.attention());
  for (uint32_t i = 0; i < info.heads * stage.rows; ++i) {
    HLS_TRIPS(1, K::heads * K::rows)
    const HeadTag tag = tags.read();
    Word word = zero_word();
    for (uint32_t j = 0; j < halves_per_head; ++j) {
      HLS_TRIPS(1, K::head_dim / kHalf)
      HLS_PIPELINE(1)
      if (j % 2 == 0) word = words.read();
      const uint32_t half = tag.head * halves_per_head + j;  // of the row
      Word& target = pending[tag.row];
      if (half % 2 == 0) target = zero_word();
      HLS_UNROLL_AHEAD
      for (uint32_t lane = 0; lane < kHalf; ++lane) {
        HLS_UNROLL
        set_lane(target, (half % 2) * kHalf + lane, get_lane(word, (j % 2) * kHalf + lane));
      }
      if (half % 2 == 1 || half + 1 == halves_per_row) {
        out.write(Store{stage.result + tag.row * row_words + half / 2, false, target});
      }
    }
  }
  out.write(end_of_stores());
}

// Quantises k and v heads and sends their records to the ports of their pages: keys and values as
// they come, the scales of a token behind its last value head.
//   K     shape; rows * 2 kv_heads scales on chip
// Cycles: per head 2 * head_dim.
template <typename K, typename Stores>
void quantize_kv(const Stage stage, const ModelInfo info, Stream<RowInfo>& rows,
                 Stream<HeadTag>& tags, Stream<Word>& words, Stores (&out)[K::kv_ports]) {
  if (stage.kind != kQkv) return;
  const KvLayout layout = info.kv();
  uint32_t stream[K::rows];  // KV stream and first word of the layer's block in its arena
  uint32_t base[K::rows];
  uint32_t token[K::rows];
  float scales[K::rows][padded(2 * K::kv_heads)];
  for (uint32_t i = 0; i < stage.rows; ++i) {
    HLS_TRIPS(1, K::rows)
    HLS_PIPELINE(1)
    const RowInfo row = rows.read();
    stream[i] = row.page % K::kv_streams;
    base[i] = row.page / K::kv_streams * layout.page_words() + stage.layer * layout.layer_words();
    token[i] = row.position % kPageTokens;
  }
  for (uint32_t i = 0; i < 2 * info.kv_heads * stage.rows; ++i) {
    HLS_TRIPS(2, 2 * K::kv_heads * K::rows)
    const HeadTag tag = tags.read();
    const uint32_t index = tag.head - info.heads;  // keys, then values
    const bool is_value = index >= info.kv_heads;
    const uint32_t head = is_value ? index - info.kv_heads : index;
    float x[K::head_dim];
    read_head<K::head_dim>(words, info.head_dim, x);
    const SymmetricScale scale = symmetric_scale(largest_magnitude(x, info.head_dim));
    scales[tag.row][index] = scale.scale;
    const uint32_t port = stream[tag.row] % K::kv_ports;
    const uint32_t arena = stream[tag.row] / K::kv_ports;
    const uint32_t at = base[tag.row] + (is_value ? layout.values() : layout.keys()) +
                        token[tag.row] * layout.token_words() + head * layout.head_words();
    for (uint32_t w = 0; w < layout.head_words(); ++w) {
      HLS_TRIPS(1, divide_up(K::head_dim, kBytesPerWord))
      const Word data = quantize_head_word(x, info.head_dim, w, scale.inverse);
      out[port].write(PageStore{arena, at + w, false, data});
    }
    if (index + 1 < 2 * info.kv_heads) continue;
    for (uint32_t w = 0; w < layout.scale_words(); ++w) {
      HLS_TRIPS(1, float_words(2 * K::kv_heads))
      HLS_PIPELINE(1)
      Word data = zero_word();
      HLS_UNROLL_AHEAD
      for (uint32_t lane = 0; lane < kFloatsPerWord; ++lane) {
        HLS_UNROLL
        const uint32_t which = w * kFloatsPerWord + lane;
        if (which < 2 * info.kv_heads) set_float(data, lane, scales[tag.row][which]);
      }
      out[port].write(
          PageStore{arena, base[tag.row] + token[tag.row] * layout.scale_words() + w, false, data});
    }
  }
  HLS_UNROLL_AHEAD
  for (uint32_t port = 0; port < K::kv_ports; ++port) {
    HLS_UNROLL
    out[port].write(PageStore{0, 0, true, zero_word()});
  }
}

}  // namespace kernels
}  // namespace flexllm
