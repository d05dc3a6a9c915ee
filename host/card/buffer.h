// Buffer objects and the clients (open render nodes) that own them by handle. A buffer lives until
// the last of its handles, exports' importers, copies in flight and launches let go of it.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <mutex>

#include "host/card/bank.h"
#include "host/card/host_pool.h"

namespace flexllm::card {

// Flags of CREATE_BO, as libxrt_core sends them.
namespace buffer_flag {
inline constexpr std::uint32_t bank_mask = 0xFFFFFF;
inline constexpr std::uint32_t device_only = 1u << 28;
inline constexpr std::uint32_t host_only = 1u << 29;
inline constexpr std::uint32_t execution = 1u << 31;
}  // namespace buffer_flag

inline constexpr std::uint64_t kNoAddress = ~0ull;

struct BufferObject {
  BufferObject() = default;
  ~BufferObject() {
    if (bank) bank->release(address);
  }
  BufferObject(const BufferObject&) = delete;
  BufferObject& operator=(const BufferObject&) = delete;

  std::uint64_t bytes = 0;
  std::uint32_t flags = 0;
  std::uint64_t address = kNoAddress;  // on the device
  std::shared_ptr<Bank> bank;          // null for execution and host-only buffers
  HostBlock host;                      // empty for device-only and user-pointer buffers
  std::byte* user = nullptr;           // the caller's memory, for user-pointer buffers

  std::byte* host_data() const { return host ? host.data() : user; }
  bool holds(std::uint64_t offset, std::uint64_t length) const {
    return offset <= bytes && length <= bytes - offset;
  }
};

// One open render node. The card's lock guards its tables; `signal` takes its own.
class Client {
 public:
  explicit Client(int fd) : fd_(fd) {}

  std::map<std::uint32_t, std::shared_ptr<BufferObject>> buffers;
  std::map<std::uint32_t, unsigned> contexts;  // compute unit index -> times opened

  std::uint32_t add(std::shared_ptr<BufferObject> buffer);
  std::shared_ptr<BufferObject> find(std::uint32_t handle) const;  // null if there is none

  // Makes a poll() of the node return. Nothing once the node is closed.
  void signal();
  void close();

 private:
  std::mutex mutex_;
  int fd_;
  std::uint32_t next_handle_ = 1;
};

}  // namespace flexllm::card
