// Hands out ids of KV pages. One page holds page_tokens() positions of all layers of one sequence.
// Not thread-safe: called by the thread that owns the engine.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

namespace flexllm::host {

using PageId = uint32_t;

class PageAllocator {
 public:
  explicit PageAllocator(uint32_t pages);

  uint32_t total() const;
  uint32_t available() const;

  // All `count` pages or none. Ids are dealt so that consecutive pages of a sequence lie in
  // different banks.
  std::optional<std::vector<PageId>> allocate(uint32_t count);
  // Pages may have several owners (a shared prefix): each share() needs one more release().
  void share(PageId page);
  void release(PageId page);
  uint32_t owners(PageId page) const;

 private:
  std::vector<PageId> free_;
  std::vector<uint32_t> owners_;
};

}  // namespace flexllm::host
