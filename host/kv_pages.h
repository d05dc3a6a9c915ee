// Hands out ids of KV pages. One page holds the record of 32 positions of all layers of one
// sequence (docs/kv-cache.md). Not thread-safe: called by the thread that owns the engine.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

namespace flexllm::host {

using PageId = uint32_t;

class PageAllocator {
 public:
  // Page p lies in bank p mod `banks`.
  explicit PageAllocator(uint32_t pages, uint32_t banks = 1);

  uint32_t total() const { return static_cast<uint32_t>(owners_.size()); }
  uint32_t available() const { return available_; }

  // All `count` pages, each with one owner, or none. Consecutive pages lie in different banks as
  // long as more than one bank has room, so that a sequence is read from all of them. `after` is
  // the page that the first one follows in its sequence, if there is one.
  std::optional<std::vector<PageId>> allocate(uint32_t count,
                                              std::optional<PageId> after = std::nullopt);

  // Pages may have several owners (a shared prefix): each share() needs one more release(). Both
  // throw std::logic_error for a page that nobody owns.
  void share(PageId page);
  void release(PageId page);

  // 0 for a free page. Throws std::out_of_range for an id that does not exist.
  uint32_t owners(PageId page) const { return owners_.at(page); }

 private:
  uint32_t& owned(PageId page);

  std::vector<std::vector<PageId>> free_;  // of each bank; the last is dealt first
  std::vector<uint32_t> owners_;
  uint32_t available_;
  uint32_t next_bank_ = 0;
};

}  // namespace flexllm::host
