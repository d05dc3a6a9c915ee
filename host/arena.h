// Buffers in the memory banks of a card. A buffer lies in exactly the bank it was asked for, its
// size is rounded up to 4 KiB, and data reaches it in one of three ways:
//   HostAccess::mapped    XRT keeps a host copy, which the caller writes and reads in place
//   HostAccess::transfer  no host copy where the card can copy between banks (CopyPath::staged):
//                         data goes through one small staging buffer; else like `mapped`
//   HostAccess::none      only the card uses it
// Owned and called by one thread.
#pragma once

#include <xrt/xrt_bo.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <tl/expected.hpp>
#include <vector>

#include "host/device.h"
#include "host/device_error.h"
#include "host/memory_map.h"
#include "host/telemetry.h"

namespace flexllm::host {

enum class HostAccess { none, transfer, mapped };
enum class CopyPath { staged, mapped };

const char* to_string(CopyPath path);

// Move-only; the bank's room is free again when it is destroyed.
class DeviceBuffer {
 public:
  DeviceBuffer() = default;

  // Copies to and from the card. Offsets and sizes are in bytes, multiples of 64 (a card copies
  // whole words), inside the buffer. Not for HostAccess::none.
  tl::expected<void, DeviceError> write(uint64_t offset, std::span<const std::byte> bytes);
  tl::expected<void, DeviceError> read(uint64_t offset, std::span<std::byte> bytes);

  // The host copy of a `mapped` buffer, and the two ways of bringing its first `bytes` up to date.
  std::span<uint32_t> words() const { return words_; }
  tl::expected<void, DeviceError> to_card(uint64_t bytes);
  tl::expected<void, DeviceError> from_card(uint64_t bytes);

  const xrt::bo& bo() const { return bo_; }
  uint64_t bytes() const { return bytes_; }
  const std::string& name() const { return name_; }

 private:
  friend class CardMemory;
  struct Staging;
  struct Room;

  tl::expected<void, DeviceError> sync(xclBOSyncDirection direction, uint64_t offset,
                                       uint64_t bytes);
  void check(uint64_t offset, uint64_t bytes) const;

  std::string name_;  // "w3 in HBM[3]"
  uint64_t bytes_ = 0;
  std::shared_ptr<Room> room_;
  std::shared_ptr<CopyCounters> copied_;
  std::shared_ptr<Staging> staging_;  // null: there is a host copy, or no access
  xrt::bo bo_;
  std::span<uint32_t> words_;
};

class CardMemory {
 public:
  static constexpr uint64_t kAlignment = 4096;
  static constexpr uint64_t kStagingBytes = uint64_t{4} << 20;

  // Finds out whether the card can copy, with a staging buffer in `staging_bank`. The card's
  // kernels must be open: copies run as commands. The device must outlive the CardMemory. Without
  // `card_copies` it does not try. What is copied over the bus is counted in `copied`.
  static tl::expected<CardMemory, DeviceError> open(
      const Device& device, std::vector<Bank> banks, uint32_t staging_bank, bool card_copies,
      std::shared_ptr<CopyCounters> copied = std::make_shared<CopyCounters>());

  CopyPath copy_path() const { return staging_ ? CopyPath::staged : CopyPath::mapped; }

  // What is left of a bank as far as is known: what other processes hold is looked up when an
  // allocation fails.
  uint64_t available(uint32_t bank) const;

  // `out_of_memory` names the buffer, the bank, the size and what is left.
  tl::expected<DeviceBuffer, DeviceError> allocate(const std::string& name, uint32_t bank,
                                                   uint64_t bytes, HostAccess access);

 private:
  CardMemory(const Device& device, std::vector<Bank> banks, std::shared_ptr<CopyCounters> copied);

  tl::unexpected<DeviceError> no_room(const std::string& name, const Bank& bank,
                                      uint64_t bytes) const;
  void look_up_other_processes();

  const Device* device_;
  std::vector<Bank> banks_;
  std::shared_ptr<std::vector<uint64_t>> used_;  // bytes of each bank that this object gave away
  std::vector<uint64_t> used_by_others_;
  std::shared_ptr<DeviceBuffer::Staging> staging_;
  std::shared_ptr<CopyCounters> copied_;
};

}  // namespace flexllm::host
