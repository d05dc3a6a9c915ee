#include "host/arena.h"

#include <algorithm>
#include <cstring>
#include <new>
#include <stdexcept>
#include <utility>

namespace flexllm::host {
namespace {

using Kind = DeviceError::Kind;

std::string mebibytes(uint64_t bytes) {
  const uint64_t tenths = bytes * 10 / (uint64_t{1} << 20);
  return std::to_string(tenths / 10) + "." + std::to_string(tenths % 10) + " MiB";
}

}  // namespace

// A buffer with a host copy, through which all others are filled and read.
struct DeviceBuffer::Staging {
  DeviceBuffer buffer;

  std::byte* bytes() { return reinterpret_cast<std::byte*>(buffer.words_.data()); }
};

// What a buffer takes of its bank, for as long as it lives.
struct DeviceBuffer::Room {
  Room(std::shared_ptr<std::vector<uint64_t>> banks, uint32_t bank, uint64_t bytes)
      : banks_(std::move(banks)), bank_(bank), bytes_(bytes) {
    (*banks_)[bank_] += bytes_;
  }
  ~Room() { (*banks_)[bank_] -= bytes_; }
  Room(const Room&) = delete;
  Room& operator=(const Room&) = delete;

 private:
  std::shared_ptr<std::vector<uint64_t>> banks_;
  uint32_t bank_;
  uint64_t bytes_;
};

const char* to_string(CopyPath path) {
  return path == CopyPath::staged ? "staged through a small buffer"
                                  : "through a host copy of each buffer";
}

void DeviceBuffer::check(uint64_t offset, uint64_t bytes) const {
  if (offset % 64 != 0 || bytes % 64 != 0 || offset > bytes_ || bytes > bytes_ - offset) {
    throw std::out_of_range("copy outside of " + name_);
  }
}

tl::expected<void, DeviceError> DeviceBuffer::sync(xclBOSyncDirection direction, uint64_t offset,
                                                   uint64_t bytes) {
  const bool to_card = direction == XCL_BO_SYNC_BO_TO_DEVICE;
  try {
    bo_.sync(direction, bytes, offset);
    (to_card ? copied_->to_card : copied_->from_card) += bytes;
    return {};
  } catch (const std::exception& error) {
    return tl::unexpected(device_error(
        Kind::copy_failed,
        "copying " + std::to_string(bytes) + " bytes " + (to_card ? "to " : "from ") + name_,
        error));
  }
}

tl::expected<void, DeviceError> DeviceBuffer::write(uint64_t offset,
                                                    std::span<const std::byte> bytes) {
  check(offset, bytes.size());
  if (!staging_) {
    std::memcpy(reinterpret_cast<std::byte*>(words_.data()) + offset, bytes.data(), bytes.size());
    return sync(XCL_BO_SYNC_BO_TO_DEVICE, offset, bytes.size());
  }
  try {
    for (uint64_t done = 0; done < bytes.size();) {
      const uint64_t part = std::min<uint64_t>(CardMemory::kStagingBytes, bytes.size() - done);
      std::memcpy(staging_->bytes(), bytes.data() + done, part);
      staging_->buffer.bo_.sync(XCL_BO_SYNC_BO_TO_DEVICE, part, 0);
      copied_->to_card += part;
      bo_.copy(staging_->buffer.bo_, part, 0, offset + done);
      done += part;
    }
    return {};
  } catch (const std::exception& error) {
    return tl::unexpected(
        device_error(Kind::copy_failed,
                     "copying " + std::to_string(bytes.size()) + " bytes to " + name_, error));
  }
}

tl::expected<void, DeviceError> DeviceBuffer::read(uint64_t offset, std::span<std::byte> bytes) {
  check(offset, bytes.size());
  if (!staging_) {
    auto done = sync(XCL_BO_SYNC_BO_FROM_DEVICE, offset, bytes.size());
    if (done) {
      std::memcpy(bytes.data(), reinterpret_cast<const std::byte*>(words_.data()) + offset,
                  bytes.size());
    }
    return done;
  }
  try {
    for (uint64_t done = 0; done < bytes.size();) {
      const uint64_t part = std::min<uint64_t>(CardMemory::kStagingBytes, bytes.size() - done);
      staging_->buffer.bo_.copy(bo_, part, offset + done, 0);
      staging_->buffer.bo_.sync(XCL_BO_SYNC_BO_FROM_DEVICE, part, 0);
      copied_->from_card += part;
      std::memcpy(bytes.data() + done, staging_->bytes(), part);
      done += part;
    }
    return {};
  } catch (const std::exception& error) {
    return tl::unexpected(
        device_error(Kind::copy_failed,
                     "copying " + std::to_string(bytes.size()) + " bytes from " + name_, error));
  }
}

tl::expected<void, DeviceError> DeviceBuffer::to_card(uint64_t bytes) {
  check(0, bytes);
  return sync(XCL_BO_SYNC_BO_TO_DEVICE, 0, bytes);
}

tl::expected<void, DeviceError> DeviceBuffer::from_card(uint64_t bytes) {
  check(0, bytes);
  return sync(XCL_BO_SYNC_BO_FROM_DEVICE, 0, bytes);
}

CardMemory::CardMemory(const Device& device, std::vector<Bank> banks,
                       std::shared_ptr<CopyCounters> copied)
    : device_(&device),
      banks_(std::move(banks)),
      used_(std::make_shared<std::vector<uint64_t>>(banks_.size(), 0)),
      used_by_others_(banks_.size(), 0),
      copied_(std::move(copied)) {}

tl::expected<CardMemory, DeviceError> CardMemory::open(const Device& device,
                                                       std::vector<Bank> banks,
                                                       uint32_t staging_bank, bool card_copies,
                                                       std::shared_ptr<CopyCounters> copied) {
  CardMemory memory(device, std::move(banks), std::move(copied));
  if (!card_copies) return memory;
  auto staging =
      memory.allocate("the staging buffer", staging_bank, kStagingBytes, HostAccess::mapped);
  if (!staging) return tl::unexpected(staging.error());
  memory.staging_ = std::make_shared<DeviceBuffer::Staging>();
  memory.staging_->buffer = std::move(*staging);

  // A card that can copy brings a pattern to a buffer without a host copy, and back.
  auto probe = memory.allocate("the copy probe", staging_bank, kAlignment, HostAccess::transfer);
  if (!probe) return tl::unexpected(probe.error());
  std::vector<std::byte> sent(kAlignment);
  for (size_t i = 0; i < sent.size(); ++i) sent[i] = static_cast<std::byte>(i * 37 + (i >> 8));
  std::vector<std::byte> returned(kAlignment);
  const bool copies = probe->write(0, sent) && probe->read(0, returned) && sent == returned;
  if (!copies) memory.staging_.reset();
  return memory;
}

uint64_t CardMemory::available(uint32_t bank) const {
  const uint64_t used = used_->at(bank) + used_by_others_[bank];
  return used < banks_[bank].bytes ? banks_[bank].bytes - used : 0;
}

void CardMemory::look_up_other_processes() {
  const std::vector<uint64_t> all = device_->used_bytes();
  for (size_t bank = 0; bank < std::min(all.size(), banks_.size()); ++bank) {
    used_by_others_[bank] = all[bank] - std::min(all[bank], (*used_)[bank]);
  }
}

tl::unexpected<DeviceError> CardMemory::no_room(const std::string& name, const Bank& bank,
                                                uint64_t bytes) const {
  const uint64_t others = used_by_others_[bank.index];
  return tl::unexpected(DeviceError{
      Kind::out_of_memory, name + " needs " + mebibytes(bytes) + " of " + bank.tag + " (" +
                               mebibytes(bank.bytes) + "), of which " +
                               mebibytes(available(bank.index)) + " are left" +
                               (others > 0 ? "; other processes hold " + mebibytes(others) : "")});
}

tl::expected<DeviceBuffer, DeviceError> CardMemory::allocate(const std::string& name, uint32_t bank,
                                                             uint64_t bytes, HostAccess access) {
  const Bank& where = banks_.at(bank);
  DeviceBuffer buffer;
  buffer.name_ = name + " in " + where.tag;
  buffer.bytes_ = (std::max<uint64_t>(bytes, 1) + kAlignment - 1) / kAlignment * kAlignment;
  if (buffer.bytes_ > available(bank)) return no_room(name, where, buffer.bytes_);
  const bool host_copy = access == HostAccess::mapped ||
                         (access == HostAccess::transfer && copy_path() == CopyPath::mapped);
  try {
    const auto flags = host_copy ? xrt::bo::flags::normal : xrt::bo::flags::device_only;
    buffer.bo_ = xrt::bo(device_->xrt(), buffer.bytes_, flags, bank);
    if (buffer.bo_.get_memory_group() != bank) {
      return tl::unexpected(
          DeviceError{Kind::bad_bitstream, name + " was placed in memory group " +
                                               std::to_string(buffer.bo_.get_memory_group()) +
                                               " instead of " + where.tag});
    }
    if (host_copy) {
      buffer.words_ = {buffer.bo_.map<uint32_t*>(), buffer.bytes_ / sizeof(uint32_t)};
    } else if (access == HostAccess::transfer) {
      buffer.staging_ = staging_;
    }
  } catch (const std::bad_alloc&) {  // XRT's only word for every reason
    look_up_other_processes();
    if (buffer.bytes_ > available(bank)) return no_room(name, where, buffer.bytes_);
    return tl::unexpected(
        DeviceError{Kind::out_of_memory,
                    "the driver refused " + mebibytes(buffer.bytes_) + " for " + buffer.name_ +
                        ", although " + mebibytes(available(bank)) +
                        " should be left; the host may lack memory for the buffer's copy"});
  } catch (const std::exception& error) {
    return tl::unexpected(device_error(Kind::out_of_memory, "allocating " + buffer.name_, error));
  }
  buffer.copied_ = copied_;
  buffer.room_ = std::make_shared<DeviceBuffer::Room>(used_, bank, buffer.bytes_);
  return buffer;
}

}  // namespace flexllm::host
