#include "host/card/host_pool.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <new>
#include <system_error>
#include <utility>

#include "host/card/bank.h"

namespace flexllm::card {

HostBlock::HostBlock(std::shared_ptr<HostPool> pool, std::uint64_t offset, std::uint64_t bytes,
                     std::byte* data)
    : pool_(std::move(pool)), offset_(offset), bytes_(bytes), data_(data) {}

HostBlock::HostBlock(HostBlock&& other) noexcept
    : pool_(std::move(other.pool_)),
      offset_(other.offset_),
      bytes_(other.bytes_),
      data_(std::exchange(other.data_, nullptr)) {}

HostBlock& HostBlock::operator=(HostBlock&& other) noexcept {
  std::swap(pool_, other.pool_);
  std::swap(offset_, other.offset_);
  std::swap(bytes_, other.bytes_);
  std::swap(data_, other.data_);
  return *this;
}

HostBlock::~HostBlock() {
  if (data_ != nullptr) pool_->release(*this);
}

std::shared_ptr<HostPool> HostPool::create() {
  const int fd = ::memfd_create("flexllm-card-host-memory", MFD_CLOEXEC);
  if (fd < 0) throw std::system_error(errno, std::generic_category(), "memfd_create");
  return std::shared_ptr<HostPool>(new HostPool(fd));
}

HostPool::~HostPool() { ::close(fd_); }

HostBlock HostPool::allocate(std::uint64_t bytes) {
  const std::uint64_t length = whole_pages(bytes);
  std::uint64_t offset = 0;
  {
    const std::lock_guard lock(mutex_);
    offset = end_;
    if (length > (1ull << 62) - end_ || ::ftruncate(fd_, static_cast<off_t>(end_ + length)) != 0) {
      throw std::bad_alloc();
    }
    end_ += length;
  }
  void* data =
      ::mmap(nullptr, length, PROT_READ | PROT_WRITE, MAP_SHARED, fd_, static_cast<off_t>(offset));
  if (data == MAP_FAILED) throw std::bad_alloc();
  return HostBlock(shared_from_this(), offset, length, static_cast<std::byte*>(data));
}

void HostPool::release(const HostBlock& block) {
  ::munmap(block.data(), block.bytes());
  ::fallocate(fd_, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, static_cast<off_t>(block.offset()),
              static_cast<off_t>(block.bytes()));
}

}  // namespace flexllm::card
