// The merge rules of a BPE model: a hash table from pairs of token ids, open addressing with linear
// probing, at most half full. Filled once, then immutable.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace flexllm::tokenizer {

struct Merge {
  uint32_t rank;
  uint32_t id;  // of the joined token
};

class MergeTable {
 public:
  explicit MergeTable(size_t rules)
      : slots_(std::bit_ceil(2 * rules + 2)),
        shift_(64 - static_cast<int>(std::bit_width(slots_.size() - 1))) {}

  // The first rule of a pair stays. At most as many as the constructor was told.
  void add(uint32_t left, uint32_t right, Merge merge) {
    Slot& slot = slots_[index_of(key_of(left, right))];
    if (slot.key == kEmpty) slot = {key_of(left, right), merge};
  }

  // nullptr when the pair does not merge.
  const Merge* find(uint32_t left, uint32_t right) const {
    const Slot& slot = slots_[index_of(key_of(left, right))];
    return slot.key == kEmpty ? nullptr : &slot.merge;
  }

 private:
  static constexpr uint64_t kEmpty = ~uint64_t{0};
  struct Slot {
    uint64_t key = kEmpty;
    Merge merge{};
  };

  static uint64_t key_of(uint32_t left, uint32_t right) { return uint64_t{left} << 32 | right; }

  // Where the key stands or would stand. Fibonacci hashing.
  size_t index_of(uint64_t key) const {
    size_t index = static_cast<size_t>((key ^ (key >> 29)) * 0x9E3779B97F4A7C15u >> shift_);
    while (slots_[index].key != kEmpty && slots_[index].key != key) {
      index = (index + 1) & (slots_.size() - 1);
    }
    return index;
  }

  std::vector<Slot> slots_;
  int shift_;
};

}  // namespace flexllm::tokenizer
