// KV pages (docs/kv-cache.md): writing records, and walking the pages of a sequence over all ports.
#pragma once

#include "kernels/modules/rows.h"
#include "kernels/modules/types.h"

namespace flexllm {
namespace kernels {

// The KV arenas. Only indexed by constants once loops are unrolled. Port p owns the arenas
// p, p + ports, p + 2 ports, ...
template <uint32_t Streams>
struct PageArenas {
  Word* at[Streams];
};

// The writer of one port's pages: until the end of its stores.
//   K     shape
// Cycles: one per word.
template <typename K>
void write_pages(const PageArenas<K::kv_streams> arenas, uint32_t port, const Stage stage,
                 Stream<PageStore>& stores) {
  static_assert(K::kv_streams % K::kv_ports == 0, "every port has as many arenas");
  bool last = stage.kind != kQkv;
  while (!last) {
    HLS_PIPELINE(1)
    const PageStore store = stores.read();
    last = store.last;
    HLS_UNROLL_AHEAD
    for (uint32_t arena = 0; arena < K::kv_streams / K::kv_ports; ++arena) {
      HLS_UNROLL
      const uint32_t stream = arena * K::kv_ports + port;
      if (!last && store.arena == arena) arenas.at[stream][store.address] = store.data;
    }
  }
}

constexpr uint32_t kBlockReaders = 3;  // scores, softmax, values

// Rows of one sequence that pass over its pages together. `last` alone ends the stream.
template <uint32_t MaxRows>
struct QueryBlock {
  bool last;
  uint32_t rows;
  uint32_t tokens;  // of the longest row: its position + 1
  uint32_t position[MaxRows];
};

// A page to read: where it is, how many of its tokens, and whether values are wanted too.
struct PageRequest {
  bool last;
  bool values;
  uint32_t port;
  uint32_t arena;
  uint32_t word;  // of the layer's block
  uint32_t tokens;
};

// Cuts the launch into blocks of consecutive rows of a sequence, and names for each block the pages
// that it reads: once for the scores' maxima (keys), once more for the output (keys and values).
// Pages behind the last row of a block are never read: causality costs nothing.
//   K     shape
// Cycles: one per page and pass.
template <typename K, typename Blocks, typename Requests>
void plan_attention(const Word* desc, const LaunchInfo launch, const ModelInfo info, uint32_t layer,
                    Blocks (&blocks)[kBlockReaders], Requests (&requests)[K::kv_ports],
                    Stream<PageRequest>& order) {
  typedef QueryBlock<K::attention_rows> Block;
  const KvLayout layout = info.kv();
  uint32_t row = 0;
  while (row < launch.rows) {
    HLS_TRIPS(1, K::rows)
    Block block = {};
    uint32_t sequence = 0;
    bool same = true;
    for (uint32_t i = 0; i < K::attention_rows; ++i) {
      if (!same || row >= launch.rows) continue;
      const RowInfo next = unpack_row(desc[launch.row_table + row], row);
      if (i == 0) sequence = next.sequence;
      same = next.sequence == sequence;
      if (!same) continue;
      block.position[i] = next.position;
      block.tokens = next.position + 1 > block.tokens ? next.position + 1 : block.tokens;
      ++block.rows;
      ++row;
    }
    HLS_UNROLL_AHEAD
    for (uint32_t reader = 0; reader < kBlockReaders; ++reader) {
      HLS_UNROLL
      blocks[reader].write(block);
    }
    for (uint32_t pass = 0; pass < 2; ++pass) {
      Word ids = zero_word();
      for (uint32_t page = 0; page < divide_up(block.tokens, kPageTokens); ++page) {
        HLS_TRIPS(1, divide_up(K::context, kPageTokens))
        HLS_PIPELINE(1)
        if (page % kFieldsPerWord == 0) {
          ids = desc[launch.page_tables + sequence * launch.page_table_stride +
                     page / kFieldsPerWord];
        }
        const uint32_t id = get_lane(ids, page % kFieldsPerWord);
        const uint32_t stream = id % K::kv_streams;
        const uint32_t left = block.tokens - page * kPageTokens;
        const PageRequest request = {
            false,
            pass == 1,
            stream % K::kv_ports,
            stream / K::kv_ports,
            id / K::kv_streams * layout.page_words() + layer * layout.layer_words(),
            left < kPageTokens ? left : kPageTokens};
        HLS_UNROLL_AHEAD
        for (uint32_t port = 0; port < K::kv_ports; ++port) {
          HLS_UNROLL
          if (port == request.port) requests[port].write(request);
        }
        order.write(request);
      }
    }
  }
  const Block no_block = {true, 0, 0, {}};
  const PageRequest no_page = {true, false, 0, 0, 0, 0};
  HLS_UNROLL_AHEAD
  for (uint32_t reader = 0; reader < kBlockReaders; ++reader) {
    HLS_UNROLL
    blocks[reader].write(no_block);
  }
  HLS_UNROLL_AHEAD
  for (uint32_t port = 0; port < K::kv_ports; ++port) {
    HLS_UNROLL
    requests[port].write(no_page);
  }
  order.write(no_page);
}

// The reader of one port's pages: for each request the scales, the keys and, if asked for, the
// values of its tokens. Ports run ahead of each other as far as their streams are deep.
//   K     shape
// Cycles: one per word.
template <typename K>
void load_pages(const PageArenas<K::kv_streams> arenas, uint32_t port, const ModelInfo info,
                Stream<PageRequest>& requests, Stream<Word>& words) {
  const KvLayout layout = info.kv();
  for (PageRequest page = requests.read(); !page.last; page = requests.read()) {
    HLS_TRIPS(1, 2 * divide_up(K::context, kPageTokens))
    const uint32_t scales = page.tokens * layout.scale_words();
    const uint32_t bytes = page.tokens * layout.token_words();
    const uint32_t total = scales + bytes + (page.values ? bytes : 0);
    for (uint32_t i = 0; i < total; ++i) {
      HLS_TRIPS(3, kPageTokens * (float_words(2 * K::kv_heads) +
                                  2 * K::kv_heads * divide_up(K::head_dim, kBytesPerWord)))
      HLS_PIPELINE(1)
      const uint32_t offset = i < scales           ? i
                              : i < scales + bytes ? layout.keys() + i - scales
                                                   : layout.values() + i - scales - bytes;
      Word word = zero_word();
      HLS_UNROLL_AHEAD
      for (uint32_t arena = 0; arena < K::kv_streams / K::kv_ports; ++arena) {
        HLS_UNROLL
        const uint32_t stream = arena * K::kv_ports + port;
        if (page.arena == arena) word = arenas.at[stream][page.word + offset];
      }
      words.write(word);
    }
  }
}

// Brings the pages of all ports back into their order and deals their parts: scales to both the
// scores and the softmax, keys and values to their multipliers.
//   K     shape
// Cycles: one per word.
template <typename K, typename Words>
void merge_pages(const ModelInfo info, Stream<PageRequest>& order, Words (&ports)[K::kv_ports],
                 Stream<Word>& key_scales, Stream<Word>& value_scales, Stream<Word>& keys,
                 Stream<Word>& values) {
  const KvLayout layout = info.kv();
  for (PageRequest page = order.read(); !page.last; page = order.read()) {
    HLS_TRIPS(1, 2 * divide_up(K::context, kPageTokens))
    const uint32_t scales = page.tokens * layout.scale_words();
    const uint32_t bytes = page.tokens * layout.token_words();
    const uint32_t total = scales + bytes + (page.values ? bytes : 0);
    for (uint32_t i = 0; i < total; ++i) {
      HLS_TRIPS(3, kPageTokens * (float_words(2 * K::kv_heads) +
                                  2 * K::kv_heads * divide_up(K::head_dim, kBytesPerWord)))
      HLS_PIPELINE(1)
      Word word = zero_word();
      HLS_UNROLL_AHEAD
      for (uint32_t port = 0; port < K::kv_ports; ++port) {
        HLS_UNROLL
        if (port == page.port) word = ports[port].read();
      }
      if (i < scales) {
        key_scales.write(word);
        value_scales.write(word);
      } else if (i < scales + bytes) {
        keys.write(word);
      } else {
        values.write(word);
      }
    }
  }
}

}  // namespace kernels
}  // namespace flexllm
