// KV pages (docs/kv-cache.md) in card memory: writing records, reading pages.
#pragma once

#include "kernels/hls/memory.h"
#include "kernels/modules/types.h"

namespace flexllm {
namespace kernels {

// The KV arenas. Only indexed by constants once loops are unrolled. Port p owns the arenas
// p, p + ports, p + 2 ports, ...
template <uint32_t Streams>
struct PageArenas {
  Word* at[Streams];
};

// The writer of one port's pages: until the end of its stores. Stores to the same arena that follow
// each other are one loop.
//   K     shape
// Cycles: one per word, and the latency of the memory for each change of arena.
template <typename K>
void write_pages(const PageArenas<K::kv_streams> arenas, uint32_t port, const Stage stage,
                 Stream<PageStore>& stores) {
  static_assert(K::kv_streams % K::kv_ports == 0, "every port has as many arenas");
  if (stage.kind != kQkv) return;
  PageStore store = stores.read();
  while (!store.last) {
    HLS_TRIPS(0, K::rows)
    HLS_UNROLL_AHEAD
    for (uint32_t arena = 0; arena < K::kv_streams / K::kv_ports; ++arena) {
      HLS_UNROLL
      Word* const to = arenas.at[arena * K::kv_ports + port];
      while (!store.last && store.arena == arena) {
        HLS_TRIPS(0, 1 << 16)
        HLS_PIPELINE(1)
        write_word(to, store.address, store.data);
        store = stores.read();
      }
    }
  }
}

// A page to read: where it is and how many of its tokens; their values, or scales and keys.
struct PageRequest {
  bool last;
  bool values;
  uint32_t arena;
  uint32_t word;  // of the layer's block
  uint32_t tokens;
};

// Sends the scales and keys, or the values, of the tokens of a page. One run of ascending
// addresses: scales of tokens that are not asked for are read on the way to the keys, and dropped.
//   MostWords  of a page's keys
// Cycles: one per word, and once the latency of the memory.
template <uint32_t MostWords>
inline void load_page(const Word* arena, const PageRequest& page, const KvLayout& layout,
                      Stream<Word>& scales, Stream<Word>& keys, Stream<Word>& values) {
  const uint32_t bytes = page.tokens * layout.token_words();
  const uint32_t scales_end = page.tokens * layout.scale_words();
  const uint32_t from = page.word + (page.values ? layout.values() : 0);
  const uint32_t count = page.values ? bytes : layout.keys() + bytes;
  for (uint32_t i = 0; i < count; ++i) {
    HLS_TRIPS(1, MostWords)
    HLS_PIPELINE(1)
    const Word word = read_word(arena, from + i);
    if (page.values) {
      values.write(word);
    } else if (i >= layout.keys()) {
      keys.write(word);
    } else if (i < scales_end) {
      scales.write(word);
    }
  }
}

// The reader of one port's pages, each in one burst. It runs ahead as far as its streams are deep:
// a page each.
//   K     shape
// Cycles: per page the latency of the memory; per page of keys 32 * scale_words + tokens *
// token_words, of values tokens * token_words.
template <typename K>
void load_pages(const PageArenas<K::kv_streams> arenas, uint32_t port, const ModelInfo info,
                Stream<PageRequest>& requests, Stream<Word>& scales, Stream<Word>& keys,
                Stream<Word>& values) {
  constexpr uint32_t kMostWords =
      kPageTokens *
      (float_words(2 * K::kv_heads) + K::kv_heads * divide_up(K::head_dim, kBytesPerWord));
  const KvLayout layout = info.kv();
  for (PageRequest page = requests.read(); !page.last; page = requests.read()) {
    HLS_TRIPS(1, 2 * divide_up(K::context, kPageTokens))
    HLS_UNROLL_AHEAD
    for (uint32_t arena = 0; arena < K::kv_streams / K::kv_ports; ++arena) {
      HLS_UNROLL
      if (page.arena == arena) {
        load_page<kMostWords>(arenas.at[arena * K::kv_ports + port], page, layout, scales, keys,
                              values);
      }
    }
  }
}

}  // namespace kernels
}  // namespace flexllm
