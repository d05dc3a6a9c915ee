#include "host/kv_pages.h"

#include <stdexcept>
#include <string>

namespace flexllm::host {

PageAllocator::PageAllocator(uint32_t pages, uint32_t banks)
    : free_(banks), owners_(pages, 0), available_(pages) {
  if (banks == 0) throw std::invalid_argument("pages need at least one bank");
  for (PageId page = pages; page-- > 0;) free_[page % banks].push_back(page);
}

std::optional<std::vector<PageId>> PageAllocator::allocate(uint32_t count,
                                                           std::optional<PageId> after) {
  if (count > available_) return std::nullopt;
  const uint32_t banks = static_cast<uint32_t>(free_.size());
  uint32_t bank = after ? *after % banks + 1 : next_bank_;
  std::vector<PageId> pages;
  pages.reserve(count);
  while (pages.size() < count) {
    std::vector<PageId>& free = free_[bank % banks];
    ++bank;
    if (free.empty()) continue;
    pages.push_back(free.back());
    free.pop_back();
    owners_[pages.back()] = 1;
  }
  available_ -= count;
  next_bank_ = bank % banks;
  return pages;
}

uint32_t& PageAllocator::owned(PageId page) {
  if (page >= owners_.size() || owners_[page] == 0) {
    throw std::logic_error("KV page " + std::to_string(page) + " has no owner");
  }
  return owners_[page];
}

void PageAllocator::share(PageId page) { ++owned(page); }

void PageAllocator::release(PageId page) {
  if (--owned(page) > 0) return;
  free_[page % free_.size()].push_back(page);
  ++available_;
}

}  // namespace flexllm::host
