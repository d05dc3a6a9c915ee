// Buffer objects and DMA of a card.
#include <drm.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xocl_ioctl.h>

#include <cerrno>
#include <cstring>
#include <thread>

#include "host/card/card.h"
#include "host/card/log.h"

namespace flexllm::card {
namespace {

constexpr std::uint64_t kHostAddressStep = 1ull << 32;

template <typename T>
T* user_pointer(std::uint64_t address) {
  return reinterpret_cast<T*>(address);
}

}  // namespace

int Card::place(BufferObject& buffer, std::uint32_t bank_index) {
  const std::shared_ptr<Fabric> loaded = fabric();
  const std::shared_ptr<Bank> bank = loaded ? loaded->bank(bank_index) : nullptr;
  if (!bank) return -EINVAL;
  if (faults_.fire(FaultEvent::allocate, {.card = index_, .bank = bank->tag()})) return -ENOMEM;
  const auto address = bank->allocate(buffer.bytes);
  if (!address) return -ENOMEM;
  buffer.bank = bank;
  buffer.address = *address;
  return 0;
}

int Card::create(Client& client, std::uint64_t bytes, std::uint32_t flags, std::byte* user,
                 std::uint32_t& handle) {
  if (bytes == 0) return -EINVAL;
  const auto buffer = std::make_shared<BufferObject>();
  buffer->bytes = bytes;
  buffer->flags = flags;
  buffer->user = user;
  if ((flags & buffer_flag::host_only) != 0) {
    buffer->address = next_host_address_.fetch_add(kHostAddressStep);
  } else if ((flags & buffer_flag::execution) == 0) {
    if (const int error = place(*buffer, flags & buffer_flag::bank_mask)) return error;
  }
  if (user == nullptr && (flags & buffer_flag::device_only) == 0) {
    buffer->host = pool_->allocate(bytes);
  }
  const std::lock_guard lock(mutex_);
  handle = client.add(buffer);
  return 0;
}

int Card::on(Client& client, drm_xocl_create_bo& request) {
  return create(client, request.size, request.flags, nullptr, request.handle);
}

int Card::on(Client& client, drm_xocl_userptr_bo& request) {
  return create(client, request.size, request.flags, user_pointer<std::byte>(request.addr),
                request.handle);
}

int Card::on(Client& client, drm_xocl_map_bo& request) {
  const BufferPointer found = buffer(client, request.handle);
  if (!found) return -ENOENT;
  if (!found->host) return -EPERM;
  request.offset = found->host.offset();
  return 0;
}

int Card::on(Client& client, drm_xocl_info_bo& request) {
  const BufferPointer found = buffer(client, request.handle);
  if (!found) return -ENOENT;
  request.flags = found->flags;
  request.size = found->bytes;
  request.paddr = found->address;
  return 0;
}

int Card::on(Client& client, drm_xocl_sync_bo& request) {
  const BufferPointer found = buffer(client, request.handle);
  if (!found) return -ENOENT;
  if ((found->flags & buffer_flag::host_only) != 0) return 0;
  if (!found->bank || found->host_data() == nullptr ||
      !found->holds(request.offset, request.size)) {
    return -EINVAL;
  }
  const bool to_card = request.dir == DRM_XOCL_SYNC_BO_TO_DEVICE;
  const FaultSite site{.card = index_, .bank = found->bank->tag(), .to_card = to_card};
  if (const auto fault = faults_.fire(FaultEvent::sync, site)) {
    log(Level::problem, "fault in a copy of " + found->bank->tag());
    switch (fault->kind) {
      case FaultKind::slow:
        std::this_thread::sleep_for(fault->wait);
        break;
      case FaultKind::foreign_bitstream:
        load_foreign_bitstream();
        break;
      case FaultKind::disappear:
        disappear();
        return -ENODEV;
      default:
        return -EIO;
    }
  }
  const std::uint64_t address = found->address + request.offset;
  std::byte* host = found->host_data() + request.offset;
  if (to_card) {
    found->bank->write(address, host, request.size);
    bytes_to_card_ += request.size;
  } else {
    found->bank->read(address, host, request.size);
    bytes_from_card_ += request.size;
  }
  return 0;
}

int Card::on(Client& client, drm_xocl_pwrite_bo& request) {
  const BufferPointer found = buffer(client, request.handle);
  if (!found) return -ENOENT;
  if (found->host_data() == nullptr || !found->holds(request.offset, request.size)) return -EINVAL;
  std::memcpy(found->host_data() + request.offset, user_pointer<const void>(request.data_ptr),
              request.size);
  return 0;
}

int Card::on(Client& client, drm_xocl_pread_bo& request) {
  const BufferPointer found = buffer(client, request.handle);
  if (!found) return -ENOENT;
  if (found->host_data() == nullptr || !found->holds(request.offset, request.size)) return -EINVAL;
  std::memcpy(user_pointer<void>(request.data_ptr), found->host_data() + request.offset,
              request.size);
  return 0;
}

int Card::copy(const BufferObject& from, std::uint64_t source, const BufferObject& to,
               std::uint64_t target, std::uint64_t bytes) {
  if (!from.bank || !to.bank || !from.holds(source, bytes) || !to.holds(target, bytes)) {
    return -EINVAL;
  }
  Bank::copy(*from.bank, from.address + source, *to.bank, to.address + target, bytes);
  return 0;
}

int Card::on(Client& client, drm_xocl_copy_bo& request) {
  const BufferPointer from = buffer(client, request.src_handle);
  const BufferPointer to = buffer(client, request.dst_handle);
  if (!from || !to) return -ENOENT;
  return copy(*from, request.src_offset, *to, request.dst_offset, request.size);
}

int Card::on(Client&, drm_xocl_pwrite_unmgd& request) {
  const std::shared_ptr<Fabric> loaded = fabric();
  const auto bank = loaded ? loaded->bank_at(request.paddr, request.size) : nullptr;
  if (!bank) return -EFAULT;
  bank->write(request.paddr, user_pointer<const void>(request.data_ptr), request.size);
  bytes_to_card_ += request.size;
  return 0;
}

int Card::on(Client&, drm_xocl_pread_unmgd& request) {
  const std::shared_ptr<Fabric> loaded = fabric();
  const auto bank = loaded ? loaded->bank_at(request.paddr, request.size) : nullptr;
  if (!bank) return -EFAULT;
  bank->read(request.paddr, user_pointer<void>(request.data_ptr), request.size);
  bytes_from_card_ += request.size;
  return 0;
}

int Card::on(Client& client, drm_gem_close& request) {
  BufferPointer closed;  // let go of outside the lock
  const std::lock_guard lock(mutex_);
  const auto found = client.buffers.find(request.handle);
  if (found == client.buffers.end()) return -EINVAL;
  closed = std::move(found->second);
  client.buffers.erase(found);
  return 0;
}

// An export is a descriptor of its own; its inode is the key by which an importer finds the buffer.
int Card::export_buffer(Client& client, drm_prime_handle& request) {
  const BufferPointer found = buffer(client, request.handle);
  if (!found) return -ENOENT;
  const int fd = ::memfd_create("flexllm-card-export", MFD_CLOEXEC);
  if (fd < 0) return -errno;
  struct stat identity {};
  if (::fstat(fd, &identity) != 0) {
    const int error = errno;
    ::close(fd);
    return -error;
  }
  const std::lock_guard lock(mutex_);
  std::erase_if(exports_, [](const auto& entry) { return entry.second.expired(); });
  exports_[{identity.st_dev, identity.st_ino}] = found;
  request.fd = fd;
  return 0;
}

int Card::import_buffer(Client& client, drm_prime_handle& request) {
  struct stat identity {};
  if (::fstat(request.fd, &identity) != 0) return -EBADF;
  const std::lock_guard lock(mutex_);
  const auto found = exports_.find({identity.st_dev, identity.st_ino});
  const BufferPointer shared = found == exports_.end() ? nullptr : found->second.lock();
  if (!shared) return -EINVAL;
  request.handle = client.add(shared);
  return 0;
}

}  // namespace flexllm::card
