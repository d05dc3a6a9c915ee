#include "host/card/bank.h"

#include <sys/mman.h>

#include <cstring>
#include <new>
#include <utility>

namespace flexllm::card {

Bank::Bank(std::string tag, std::uint64_t base, std::uint64_t bytes)
    : tag_(std::move(tag)), base_(base), bytes_(bytes) {
  void* memory = ::mmap(nullptr, bytes_, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) throw std::bad_alloc();
  ::madvise(memory, bytes_, MADV_HUGEPAGE);
  ::madvise(memory, bytes_, MADV_DONTDUMP);
  memory_ = static_cast<std::byte*>(memory);
}

Bank::~Bank() { ::munmap(memory_, bytes_); }

std::optional<std::uint64_t> Bank::allocate(std::uint64_t bytes) {
  if (bytes == 0 || bytes > bytes_) return std::nullopt;
  const std::uint64_t need = whole_pages(bytes);
  const std::lock_guard lock(allocation_mutex_);
  std::uint64_t offset = 0;
  for (const auto& [start, length] : buffers_) {
    if (start - offset >= need) break;
    offset = start + length;
  }
  if (need > bytes_ || offset > bytes_ - need) return std::nullopt;
  buffers_.emplace(offset, need);
  allocated_ += need;
  return base_ + offset;
}

void Bank::release(std::uint64_t address) {
  const std::lock_guard lock(allocation_mutex_);
  const auto buffer = buffers_.find(address - base_);
  if (buffer == buffers_.end()) return;
  ::madvise(memory_ + buffer->first, buffer->second, MADV_DONTNEED);
  allocated_ -= buffer->second;
  buffers_.erase(buffer);
}

Region Bank::at(std::uint64_t address) const {
  if (!holds(address, 1)) return {};
  const std::uint64_t offset = address - base_;
  return {memory_ + offset, bytes_ - offset};
}

bool Bank::holds(std::uint64_t address, std::uint64_t bytes) const {
  return address >= base_ && address - base_ <= bytes_ && bytes <= bytes_ - (address - base_);
}

void Bank::write(std::uint64_t address, const void* from, std::uint64_t bytes) {
  const std::lock_guard lock(dma_mutex_);
  std::memcpy(memory_ + (address - base_), from, bytes);
}

void Bank::read(std::uint64_t address, void* to, std::uint64_t bytes) const {
  const std::lock_guard lock(dma_mutex_);
  std::memcpy(to, memory_ + (address - base_), bytes);
}

void Bank::copy(Bank& from, std::uint64_t source, Bank& to, std::uint64_t target,
                std::uint64_t bytes) {
  std::unique_lock first(from.dma_mutex_, std::defer_lock);
  std::unique_lock second(to.dma_mutex_, std::defer_lock);
  if (&from == &to) {
    first.lock();
  } else {
    std::lock(first, second);
  }
  std::memmove(to.memory_ + (target - to.base_), from.memory_ + (source - from.base_), bytes);
}

Bank::Usage Bank::usage() const {
  const std::lock_guard lock(allocation_mutex_);
  return {allocated_, buffers_.size()};
}

}  // namespace flexllm::card
