#include "host/card/card.h"

#include <drm.h>
#include <fcntl.h>
#include <sys/eventfd.h>
#include <unistd.h>
#include <xocl_ioctl.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <random>
#include <string_view>

#include "host/card/log.h"

namespace flexllm::card {
namespace {

using std::chrono::milliseconds;

constexpr int kFirstBus = 0xd8;  // then downwards: XRT numbers devices from the highest address
constexpr int kFirstRenderMinor = 184;  // above those that a machine's own GPUs take
constexpr std::uint64_t kFirstHostAddress = 0x7000000000;  // device addresses of host-only buffers
constexpr milliseconds kSettleLimit{5000};
constexpr milliseconds kStopLimit{2000};

// XRT accepts the driver by its name and opens it by its version.
int version(drm_version& out) {
  constexpr std::string_view name = "xocl";
  out.version_major = 2;
  out.version_minor = 13;
  out.version_patchlevel = 0;
  if (out.name != nullptr) std::memcpy(out.name, name.data(), std::min(out.name_len, name.size()));
  out.name_len = name.size();
  out.date_len = out.desc_len = 0;
  return 0;
}

// Requests that a card that is gone still takes: what XRT 2.13 asks in destructors, which throw,
// and so end the process, when the driver refuses.
bool gives_back(unsigned long request, const void* argument) {
  if (request == DRM_IOCTL_GEM_CLOSE || request == DRM_IOCTL_XOCL_INFO_BO) return true;
  return request == DRM_IOCTL_XOCL_CTX &&
         static_cast<const drm_xocl_ctx*>(argument)->op == XOCL_CTX_OP_FREE_CTX;
}

std::string bdf_of(int index) {
  char text[16];
  std::snprintf(text, sizeof text, "0000:%02x:00.1",
                static_cast<unsigned>(kFirstBus - index) & 255);
  return text;
}

}  // namespace

Card::Card(int index, const Shell& shell, FaultScript& faults)
    : index_(index),
      shell_(shell),
      faults_(faults),
      bdf_(bdf_of(index)),
      render_minor_(kFirstRenderMinor + index),
      pool_(HostPool::create()),
      next_host_address_(kFirstHostAddress) {}

int Card::open(int flags) {
  if (faults_.fire(FaultEvent::open, {.card = index_})) return -EACCES;
  const std::lock_guard lock(mutex_);
  if (gone_) return -ENODEV;
  const int fd =
      ::eventfd(0, EFD_SEMAPHORE | EFD_NONBLOCK | ((flags & O_CLOEXEC) != 0 ? EFD_CLOEXEC : 0));
  if (fd < 0) return -errno;
  clients_.emplace(fd, std::make_shared<Client>(fd));
  log(Level::event, bdf_ + " opened");
  return fd;
}

void Card::close(int fd) {
  ClientPointer client;
  std::shared_ptr<Fabric> fabric;
  {
    const std::lock_guard lock(mutex_);
    const auto found = clients_.find(fd);
    if (found == clients_.end()) return;
    client = found->second;
    fabric = fabric_;
    client->close();
  }
  // Its launches end before its memory is given to others.
  const bool settled = !fabric || fabric->settle(*client, kSettleLimit);
  std::map<std::uint32_t, BufferPointer> buffers;  // let go of outside the lock
  const std::lock_guard lock(mutex_);
  if (!settled) {
    stuck_ = true;
    log(Level::problem, bdf_ + " closed while a launch hangs; the card needs a reset");
  }
  std::erase_if(exclusive_, [&](const auto& entry) { return entry.second == client.get(); });
  buffers.swap(client->buffers);
  client->contexts.clear();
  clients_.erase(fd);
  log(Level::event, bdf_ + " closed");
}

Card::Mapping Card::map(int fd, std::uint64_t offset, std::uint64_t bytes) {
  const std::lock_guard lock(mutex_);
  const auto found = clients_.find(fd);
  if (found == clients_.end()) return {-EBADF, 0};
  const Client& client = *found->second;
  if (offset >= kFirstBufferOffset) {
    for (const auto& [handle, buffer] : client.buffers) {
      if (buffer->host && buffer->host.offset() == offset && bytes <= buffer->host.bytes()) {
        return {pool_->fd(), static_cast<off_t>(offset)};
      }
    }
    return {-EINVAL, 0};
  }
  // Page n + 1 is the register file of compute unit n, for those who have it open.
  const std::uint64_t page = offset / kPageBytes;
  if (page == 0 || !fabric_ || page > fabric_->compute_units() ||
      !client.contexts.contains(static_cast<std::uint32_t>(page - 1)) ||
      bytes > Fabric::kRegisterBytes) {
    return {-EINVAL, 0};
  }
  return {pool_->fd(), static_cast<off_t>(fabric_->registers(page - 1).offset())};
}

std::string Card::reset() {
  std::shared_ptr<Fabric> fabric;
  {
    const std::lock_guard lock(mutex_);
    if (!clients_.empty()) {
      return "card " + bdf_ + " has " + std::to_string(clients_.size()) + " open handles";
    }
    fabric = std::move(fabric_);
    exports_.clear();
    exclusive_.clear();
    foreign_ = gone_ = stuck_ = false;
  }
  if (fabric) fabric->stop(kStopLimit);
  log(Level::event, bdf_ + " was reset");
  return {};
}

void Card::disappear() {
  const std::lock_guard lock(mutex_);
  gone_ = true;
  if (fabric_) fabric_->vanish();
  log(Level::problem, bdf_ + " left the bus");
}

void Card::load_foreign_bitstream() {
  const std::lock_guard lock(mutex_);
  foreign_ = true;
  std::random_device random;
  std::generate(loaded_.begin(), loaded_.end(),
                [&] { return static_cast<unsigned char>(random()); });
  if (fabric_) fabric_->vanish();
  log(Level::problem, bdf_ + " was loaded with another bitstream");
}

Card::Status Card::status() const {
  const std::lock_guard lock(mutex_);
  return {gone_,           stuck_,
          clients_.size(), fabric_ || foreign_ ? to_string(loaded_) : std::string(),
          bytes_to_card_,  bytes_from_card_,
          fabric_};
}

Card::ClientPointer Card::client(int fd) const {
  const std::lock_guard lock(mutex_);
  const auto found = clients_.find(fd);
  return found == clients_.end() ? nullptr : found->second;
}

Card::BufferPointer Card::buffer(const Client& client, std::uint32_t handle) const {
  const std::lock_guard lock(mutex_);
  return client.find(handle);
}

std::shared_ptr<Fabric> Card::fabric() const {
  const std::lock_guard lock(mutex_);
  return fabric_;
}

int Card::ioctl(int fd, unsigned long request, void* argument) {
  const ClientPointer caller = client(fd);
  if (!caller) return -EBADF;
  {
    const std::lock_guard lock(mutex_);
    if (gone_ && !gives_back(request, argument)) return -ENODEV;
  }
  try {
    return dispatch(caller, request, argument);
  } catch (const std::bad_alloc&) {
    return -ENOMEM;
  } catch (const std::exception& error) {
    log(Level::problem, bdf_ + ": " + error.what());
    return -EIO;
  }
}

int Card::dispatch(const ClientPointer& client, unsigned long request, void* argument) {
  const auto answer = [&]<typename Request>(Request*) {
    return on(*client, *static_cast<Request*>(argument));
  };
  switch (request) {
    case DRM_IOCTL_VERSION:
      return version(*static_cast<drm_version*>(argument));
    case DRM_IOCTL_XOCL_CREATE_BO:
      return answer(static_cast<drm_xocl_create_bo*>(nullptr));
    case DRM_IOCTL_XOCL_USERPTR_BO:
      return answer(static_cast<drm_xocl_userptr_bo*>(nullptr));
    case DRM_IOCTL_XOCL_MAP_BO:
      return answer(static_cast<drm_xocl_map_bo*>(nullptr));
    case DRM_IOCTL_XOCL_INFO_BO:
      return answer(static_cast<drm_xocl_info_bo*>(nullptr));
    case DRM_IOCTL_XOCL_SYNC_BO:
      return answer(static_cast<drm_xocl_sync_bo*>(nullptr));
    case DRM_IOCTL_XOCL_PWRITE_BO:
      return answer(static_cast<drm_xocl_pwrite_bo*>(nullptr));
    case DRM_IOCTL_XOCL_PREAD_BO:
      return answer(static_cast<drm_xocl_pread_bo*>(nullptr));
    case DRM_IOCTL_XOCL_COPY_BO:
      return answer(static_cast<drm_xocl_copy_bo*>(nullptr));
    case DRM_IOCTL_XOCL_PWRITE_UNMGD:
      return answer(static_cast<drm_xocl_pwrite_unmgd*>(nullptr));
    case DRM_IOCTL_XOCL_PREAD_UNMGD:
      return answer(static_cast<drm_xocl_pread_unmgd*>(nullptr));
    case DRM_IOCTL_GEM_CLOSE:
      return answer(static_cast<drm_gem_close*>(nullptr));
    case DRM_IOCTL_XOCL_READ_AXLF:
      return answer(static_cast<drm_xocl_axlf*>(nullptr));
    case DRM_IOCTL_XOCL_CTX:
      return answer(static_cast<drm_xocl_ctx*>(nullptr));
    case DRM_IOCTL_XOCL_EXECBUF:
      return execute(client, *static_cast<drm_xocl_execbuf*>(argument));
    case DRM_IOCTL_PRIME_HANDLE_TO_FD:
      return export_buffer(*client, *static_cast<drm_prime_handle*>(argument));
    case DRM_IOCTL_PRIME_FD_TO_HANDLE:
      return import_buffer(*client, *static_cast<drm_prime_handle*>(argument));
    case DRM_IOCTL_XOCL_HOT_RESET:
      return 0;  // XRT's own reset only drops the handle; see docs/emulated-card.md
    default:
      log(Level::problem, bdf_ + ": ioctl " + std::to_string(request & 0xff) + " is not emulated");
      return -ENOTTY;
  }
}

}  // namespace flexllm::card
