// One memory bank of the card (an HBM pseudo-channel or a DDR channel) and the buffers in it.
//
// Bank memory is a mapping of its own, apart from host memory: data moves only by DMA, so a
// forgotten sync gives wrong data as on hardware. Pages are committed when first touched and given
// back when their buffer goes. Any thread may call; DMA in one bank is one transfer at a time, in
// different banks at once. Kernels reach the memory through `at` without a lock, as hardware does.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <mutex>
#include <optional>
#include <string>

namespace flexllm::card {

inline constexpr std::uint64_t kPageBytes = 4096;

constexpr std::uint64_t whole_pages(std::uint64_t bytes) {
  return (bytes + kPageBytes - 1) / kPageBytes * kPageBytes;
}

struct Region {
  std::byte* data = nullptr;
  std::uint64_t bytes = 0;
};

class Bank {
 public:
  // Throws std::bad_alloc if the address space cannot be reserved.
  Bank(std::string tag, std::uint64_t base, std::uint64_t bytes);
  ~Bank();
  Bank(const Bank&) = delete;
  Bank& operator=(const Bank&) = delete;

  const std::string& tag() const { return tag_; }
  std::uint64_t base() const { return base_; }
  std::uint64_t bytes() const { return bytes_; }

  // First fit in whole pages; the device address, or nothing when no gap is large enough.
  std::optional<std::uint64_t> allocate(std::uint64_t bytes);
  void release(std::uint64_t address);

  // From `address` to the end of the bank; empty for an address outside.
  Region at(std::uint64_t address) const;
  bool holds(std::uint64_t address, std::uint64_t bytes) const;

  // DMA. The range must be inside the bank.
  void write(std::uint64_t address, const void* from, std::uint64_t bytes);
  void read(std::uint64_t address, void* to, std::uint64_t bytes) const;
  static void copy(Bank& from, std::uint64_t source, Bank& to, std::uint64_t target,
                   std::uint64_t bytes);

  struct Usage {
    std::uint64_t bytes = 0;
    std::size_t buffers = 0;
  };
  Usage usage() const;

 private:
  std::string tag_;
  std::uint64_t base_;
  std::uint64_t bytes_;
  std::byte* memory_;
  mutable std::mutex allocation_mutex_;
  std::map<std::uint64_t, std::uint64_t> buffers_;  // offset -> bytes
  std::uint64_t allocated_ = 0;
  mutable std::mutex dma_mutex_;
};

}  // namespace flexllm::card
