// Host memory that the driver lends to user space: the host side of buffer objects and the register
// pages of compute units. It is one anonymous file, so that user space maps a block by the offset
// that the driver gave it, and so that nothing is left when the process dies. Any thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>

namespace flexllm::card {

// Offsets below this are not buffers (xocl maps the registers of compute units there).
inline constexpr std::uint64_t kFirstBufferOffset = 1ull << 32;

class HostPool;

// A mapped block of the pool, zero at first. Movable; gives the memory back.
class HostBlock {
 public:
  HostBlock() = default;
  HostBlock(std::shared_ptr<HostPool> pool, std::uint64_t offset, std::uint64_t bytes,
            std::byte* data);
  HostBlock(HostBlock&& other) noexcept;
  HostBlock& operator=(HostBlock&& other) noexcept;
  ~HostBlock();

  explicit operator bool() const { return data_ != nullptr; }
  std::byte* data() const { return data_; }
  std::uint64_t bytes() const { return bytes_; }
  std::uint64_t offset() const { return offset_; }

 private:
  std::shared_ptr<HostPool> pool_;
  std::uint64_t offset_ = 0;
  std::uint64_t bytes_ = 0;
  std::byte* data_ = nullptr;
};

class HostPool : public std::enable_shared_from_this<HostPool> {
 public:
  // Throws std::system_error if the kernel has no anonymous files.
  static std::shared_ptr<HostPool> create();
  ~HostPool();
  HostPool(const HostPool&) = delete;
  HostPool& operator=(const HostPool&) = delete;

  // Throws std::bad_alloc.
  HostBlock allocate(std::uint64_t bytes);
  int fd() const { return fd_; }

 private:
  friend class HostBlock;
  explicit HostPool(int fd) : fd_(fd) {}
  void release(const HostBlock& block);

  int fd_;
  std::mutex mutex_;
  std::uint64_t end_ = kFirstBufferOffset;
};

}  // namespace flexllm::card
