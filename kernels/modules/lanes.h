// How the query heads of a model are dealt to the lanes of an attention engine, and what the tasks
// of an engine send each other.
//
// `head_parallel` lanes work side by side, a head each; as many steps as it takes serve all heads.
// Two neighbouring lanes share a KV head, so that its element is multiplied by two heads at once.
// Where a KV head has an odd number of query heads one lane idles beside the last of them: a
// quarter of the lanes at a group of 3, half of them where each query head has a KV head of its
// own. With an odd `head_parallel` nothing is shared and no lane idles.
#pragma once

#include "kernels/modules/types.h"

namespace flexllm {
namespace kernels {

constexpr uint32_t smaller_of(uint32_t a, uint32_t b) { return a < b ? a : b; }

// Sizes of the engine of a port. All of them follow from the shape.
//   K     shape
template <typename K>
struct EngineShape {
  static constexpr uint32_t lanes = K::head_parallel;
  static constexpr uint32_t elements = K::kv_parallel;       // of a head, each cycle
  static constexpr uint32_t share = lanes % 2 == 0 ? 2 : 1;  // lanes with a common KV head
  static constexpr uint32_t pairs = lanes / share;           // KV heads side by side
  static constexpr uint32_t head_words = divide_up(K::head_dim, kBytesPerWord);
  static constexpr uint32_t chunks = kBytesPerWord / elements;  // cycles for a word of a head
  // At most: cycles for a head, steps for all heads, and for all rows.
  static constexpr uint32_t head_cycles = divide_up(K::head_dim, elements);
  static constexpr uint32_t steps =
      divide_up(share == 1 ? K::heads : (K::heads + smaller_of(K::heads, K::kv_heads)) / 2, pairs);
  static constexpr uint32_t row_steps = K::attention_rows * steps;
  // KV heads of a token in each of `pairs` banks, and the words that hold them.
  static constexpr uint32_t bank_heads = divide_up(K::kv_heads, pairs);
  static constexpr uint32_t bank_words = bank_heads * head_words;
  static constexpr uint32_t scale_words = float_words(2 * K::kv_heads);
  // Sums that leave an engine side by side.
  static constexpr uint32_t drained = smaller_of(elements, kFloatsPerWord);

  static_assert(elements >= 8 && kBytesPerWord % elements == 0,
                "kv_parallel is 8, 16, 32 or 64: half an output word or more, a word or less");
  static_assert(pairs <= kFloatsPerWord, "the scales of a step lie in as many banks as a word has");
};

// A float for each lane; and for each pair of lanes.
template <uint32_t Lanes>
struct LaneFloats {
  float value[Lanes];
};
template <uint32_t Lanes>
struct Numerators {
  uint16_t value[Lanes];
};
template <uint32_t Lanes>
struct LaneSums {
  Accumulator value[Lanes];
};

// Largest score of each lane's head, and largest V scale of its KV head.
template <uint32_t Lanes>
struct Maxima {
  float score[Lanes];
  float scale[Lanes];
};

// Largest score of each lane's head, and 1 / largest V scale.
template <uint32_t Lanes>
struct SoftmaxLevels {
  float largest[Lanes];
  float inverse[Lanes];
};

// For each step the KV head of each pair of lanes, and which lanes have a head.
//   K     shape
template <typename K>
struct LaneMap {
  typedef EngineShape<K> Engine;
  uint32_t steps;
  uint32_t group;  // query heads of a KV head
  uint32_t kv_head[Engine::steps][Engine::pairs];
  bool used[Engine::steps][Engine::lanes];
};

// Steps that a model takes.
template <typename K>
inline uint32_t steps_of(const ModelInfo& info) {
  typedef EngineShape<K> Engine;
  const uint32_t group = info.heads / info.kv_heads;
  return divide_up(info.kv_heads * divide_up(group, Engine::share), Engine::pairs);
}

// Fills the map. Pairs behind the last KV head have the last one, and no lanes in use.
// Cycles: one per step and pair.
template <typename K>
inline void deal_heads(const ModelInfo& info, LaneMap<K>& map) {
  typedef EngineShape<K> Engine;
  map.group = info.heads / info.kv_heads;
  map.steps = steps_of<K>(info);
  uint32_t kv_head = 0;
  uint32_t in_group = 0;
  uint32_t step = 0;
  uint32_t pair = 0;
  for (uint32_t i = 0; i < map.steps * Engine::pairs; ++i) {
    HLS_TRIPS(1, Engine::steps * Engine::pairs)
    HLS_PIPELINE(1)
    const bool valid = kv_head < info.kv_heads;
    map.kv_head[step][pair] = valid ? kv_head : info.kv_heads - 1;
    HLS_UNROLL_AHEAD
    for (uint32_t lane = 0; lane < Engine::share; ++lane) {
      HLS_UNROLL
      map.used[step][pair * Engine::share + lane] = valid && in_group + lane < map.group;
    }
    in_group += Engine::share;
    if (in_group >= map.group) {
      in_group = 0;
      ++kv_head;
    }
    if (++pair == Engine::pairs) {
      pair = 0;
      ++step;
    }
  }
}

// The lane and the step of a query head; heads ascend.
//   K     shape
template <typename K>
struct HeadPlace {
  uint32_t in_group;
  uint32_t step;
  uint32_t lane;

  static HeadPlace first() { return HeadPlace{0, 0, 0}; }

  void advance(uint32_t group) {
    typedef EngineShape<K> Engine;
    ++lane;
    if (++in_group == group) {
      in_group = 0;
      if (Engine::share == 2 && lane % 2 == 1) ++lane;  // an odd group leaves a lane idle
    }
    if (lane == Engine::lanes) {
      lane = 0;
      ++step;
    }
  }
};

// Where the words of a token go: KV head h to bank h mod `pairs`.
//   K     shape
template <typename K>
struct BankPlace {
  uint32_t bank;
  uint32_t row;  // of KV heads in the bank
  uint32_t word;

  static BankPlace first() { return BankPlace{0, 0, 0}; }

  uint32_t at(uint32_t buffer) const {
    typedef EngineShape<K> Engine;
    return buffer * Engine::bank_words + row * Engine::head_words + word;
  }

  void advance(uint32_t head_words) {
    if (++word < head_words) return;
    word = 0;
    if (++bank < EngineShape<K>::pairs) return;
    bank = 0;
    ++row;
  }
};

// Word `word` of the KV head of each pair: neighbouring pairs have the same or neighbouring KV
// heads, so each bank is read once.
//   K     shape
template <typename K>
inline void pick_words(const Word bank[EngineShape<K>::pairs][2 * EngineShape<K>::bank_words],
                       uint32_t buffer, const uint32_t kv_head[EngineShape<K>::pairs],
                       uint32_t word, Word out[EngineShape<K>::pairs]) {
  typedef EngineShape<K> Engine;
  Word read[Engine::pairs];
  HLS_PARTITION(read, 1)
  HLS_UNROLL_AHEAD
  for (uint32_t i = 0; i < Engine::pairs; ++i) {
    HLS_UNROLL
    const uint32_t row = kv_head[0] / Engine::pairs + (i < kv_head[0] % Engine::pairs ? 1u : 0u);
    const uint32_t inside = row < Engine::bank_heads ? row : 0u;
    read[i] = bank[i][buffer * Engine::bank_words + inside * Engine::head_words + word];
  }
  HLS_UNROLL_AHEAD
  for (uint32_t pair = 0; pair < Engine::pairs; ++pair) {
    HLS_UNROLL
    out[pair] = read[kv_head[pair] % Engine::pairs];
  }
}

// Float `first` + KV head of each pair, from a token's scales: float f lies in bank f mod 16.
//   K     shape
template <typename K>
inline void pick_scales(const float bank[kFloatsPerWord][2 * EngineShape<K>::scale_words],
                        uint32_t buffer, uint32_t first,
                        const uint32_t kv_head[EngineShape<K>::pairs],
                        float out[EngineShape<K>::pairs]) {
  typedef EngineShape<K> Engine;
  float read[kFloatsPerWord];
  HLS_PARTITION(read, 1)
  const uint32_t begin = first + kv_head[0];
  HLS_UNROLL_AHEAD
  for (uint32_t i = 0; i < kFloatsPerWord; ++i) {
    HLS_UNROLL
    const uint32_t row = begin / kFloatsPerWord + (i < begin % kFloatsPerWord ? 1u : 0u);
    const uint32_t inside = row < Engine::scale_words ? row : 0u;
    read[i] = bank[i][buffer * Engine::scale_words + inside];
  }
  HLS_UNROLL_AHEAD
  for (uint32_t pair = 0; pair < Engine::pairs; ++pair) {
    HLS_UNROLL
    out[pair] = read[(first + kv_head[pair]) % kFloatsPerWord];
  }
}

}  // namespace kernels
}  // namespace flexllm
