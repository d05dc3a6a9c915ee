// One emulated card: what the xocl driver keeps for a device, and the answers to its ioctls.
//
// The interposed libc calls it (interpose.cpp), from any thread. Calls return a value or -errno as
// system calls do. The card's lock guards its tables only; it is not held while data moves, while
// kernels run or while something is waited for.
#pragma once

#include <sys/types.h>

#include <atomic>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <utility>

#include "host/card/buffer.h"
#include "host/card/fabric.h"
#include "host/card/fault.h"
#include "host/card/host_pool.h"
#include "host/card/shell.h"

struct drm_gem_close;
struct drm_prime_handle;
struct drm_xocl_axlf;
struct drm_xocl_copy_bo;
struct drm_xocl_create_bo;
struct drm_xocl_ctx;
struct drm_xocl_execbuf;
struct drm_xocl_info_bo;
struct drm_xocl_map_bo;
struct drm_xocl_pread_bo;
struct drm_xocl_pread_unmgd;
struct drm_xocl_pwrite_bo;
struct drm_xocl_pwrite_unmgd;
struct drm_xocl_sync_bo;
struct drm_xocl_userptr_bo;

namespace flexllm::card {

class Card {
 public:
  Card(int index, const Shell& shell, FaultScript& faults);
  Card(const Card&) = delete;
  Card& operator=(const Card&) = delete;

  int index() const { return index_; }
  const Shell& shell() const { return shell_; }
  const std::string& bdf() const { return bdf_; }
  int render_minor() const { return render_minor_; }

  // The render node. open() returns a descriptor that poll() works on.
  int open(int flags);
  void close(int fd);
  int ioctl(int fd, unsigned long request, void* argument);
  // Which part of which file user space gets for an mmap of the node; fd < 0: -errno.
  struct Mapping {
    int fd = -1;
    off_t offset = 0;
  };
  Mapping map(int fd, std::uint64_t offset, std::uint64_t bytes);

  // What an operator or an accident does to the card. reset() needs every handle closed; it then
  // forgets the bitstream and all memory. Both return why not, or nothing.
  std::string reset();
  void disappear();
  void load_foreign_bitstream();

  struct Status {
    bool gone = false;
    bool stuck = false;  // a launch hung while its client closed; only a reset helps
    std::size_t open_handles = 0;
    std::string uuid;  // of the loaded bitstream, with dashes; empty if there is none
    std::uint64_t bytes_to_card = 0;
    std::uint64_t bytes_from_card = 0;
    std::shared_ptr<const Fabric> fabric;  // null if nothing is loaded
  };
  Status status() const;

 private:
  using ClientPointer = std::shared_ptr<Client>;
  using BufferPointer = std::shared_ptr<BufferObject>;

  int dispatch(const ClientPointer& client, unsigned long request, void* argument);
  ClientPointer client(int fd) const;
  BufferPointer buffer(const Client& client, std::uint32_t handle) const;
  std::shared_ptr<Fabric> fabric() const;

  // Buffers and DMA (card_memory.cpp).
  int create(Client& client, std::uint64_t bytes, std::uint32_t flags, std::byte* user,
             std::uint32_t& handle);
  int place(BufferObject& buffer, std::uint32_t bank_index);
  int on(Client& client, drm_xocl_create_bo& request);
  int on(Client& client, drm_xocl_userptr_bo& request);
  int on(Client& client, drm_xocl_map_bo& request);
  int on(Client& client, drm_xocl_info_bo& request);
  int on(Client& client, drm_xocl_sync_bo& request);
  int on(Client& client, drm_xocl_pwrite_bo& request);
  int on(Client& client, drm_xocl_pread_bo& request);
  int on(Client& client, drm_xocl_copy_bo& request);
  int on(Client& client, drm_xocl_pwrite_unmgd& request);
  int on(Client& client, drm_xocl_pread_unmgd& request);
  int on(Client& client, drm_gem_close& request);
  int export_buffer(Client& client, drm_prime_handle& request);
  int import_buffer(Client& client, drm_prime_handle& request);
  int copy(const BufferObject& from, std::uint64_t source, const BufferObject& to,
           std::uint64_t target, std::uint64_t bytes);

  // Bitstreams, contexts and commands (card_launch.cpp).
  int on(Client& client, drm_xocl_axlf& request);
  int on(Client& client, drm_xocl_ctx& request);
  int open_context(Client& client, const drm_xocl_ctx& request);
  int close_context(Client& client, const drm_xocl_ctx& request);
  int execute(const ClientPointer& client, const drm_xocl_execbuf& request);
  int start_kernel(const ClientPointer& client, std::uint32_t handle, const BufferPointer& packet,
                   Fabric& fabric);
  int start_copy(Client& client, const BufferObject& packet);

  const int index_;
  const Shell& shell_;
  FaultScript& faults_;
  const std::string bdf_;
  const int render_minor_;
  const std::shared_ptr<HostPool> pool_;
  std::atomic<std::uint64_t> bytes_to_card_{0};
  std::atomic<std::uint64_t> bytes_from_card_{0};
  std::atomic<std::uint64_t> next_host_address_;

  mutable std::mutex mutex_;
  std::map<int, ClientPointer> clients_;              // by descriptor
  std::map<std::uint32_t, const Client*> exclusive_;  // compute unit -> who has it alone
  std::map<std::pair<dev_t, ino_t>, std::weak_ptr<BufferObject>> exports_;
  std::shared_ptr<Fabric> fabric_;
  Uuid loaded_{};  // of the bitstream on the card, if fabric_ is set
  bool foreign_ = false;
  bool gone_ = false;
  bool stuck_ = false;
};

}  // namespace flexllm::card
