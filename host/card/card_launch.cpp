// Bitstreams, contexts and commands of a card.
#include <drm.h>
#include <ert.h>
#include <xclbin.h>
#include <xocl_ioctl.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstring>

#include "host/card/card.h"
#include "host/card/log.h"

namespace flexllm::card {
namespace {

constexpr std::chrono::milliseconds kStopLimit{2000};

bool same(const Uuid& a, const unsigned char* b) { return std::memcmp(a.data(), b, a.size()) == 0; }

// Every bank of the bitstream must be one of the board's.
bool fits(const Bitstream& bitstream, const Shell& shell) {
  return std::all_of(bitstream.banks.begin(), bitstream.banks.end(), [&](const auto& bank) {
    return !bank.used ||
           std::any_of(shell.banks.begin(), shell.banks.end(), [&](const BankRange& range) {
             return range.base == bank.base && range.bytes == bank.bytes;
           });
  });
}

}  // namespace

int Card::on(Client&, drm_xocl_axlf& request) {
  const axlf& top = *request.xclbin;
  {
    const std::lock_guard lock(mutex_);
    if (stuck_) return -EIO;
    if (fabric_ && !foreign_ && same(loaded_, top.m_header.uuid)) return 0;
  }
  Bitstream bitstream;
  try {
    bitstream = parse_bitstream({reinterpret_cast<const std::byte*>(&top), top.m_header.m_length},
                                {reinterpret_cast<const std::byte*>(request.kernels),
                                 static_cast<std::size_t>(std::max(request.ksize, 0))},
                                shell_.vbnv);
    if (!fits(bitstream, shell_)) throw BitstreamError(EINVAL, "it has banks that the board lacks");
  } catch (const BitstreamError& error) {
    log(Level::problem, bdf_ + ": cannot load the bitstream: " + error.what());
    return -error.error();
  }
  const Uuid uuid = bitstream.uuid;
  const std::shared_ptr<Fabric> fresh = Fabric::configure(
      std::move(bitstream), *pool_,
      {.card = index_, .faults = &faults_, .on_card_fault = [this](FaultKind kind) {
         kind == FaultKind::disappear ? disappear() : load_foreign_bitstream();
       }});
  std::shared_ptr<Fabric> old = fresh;  // what is stopped in the end
  int result = 0;
  {
    const std::lock_guard lock(mutex_);
    const bool busy = std::any_of(clients_.begin(), clients_.end(), [](const auto& entry) {
      return !entry.second->contexts.empty() ||
             std::any_of(entry.second->buffers.begin(), entry.second->buffers.end(),
                         [](const auto& buffer) { return buffer.second->bank != nullptr; });
    });
    if (busy) {
      result = -EBUSY;
    } else {
      std::swap(fabric_, old);
      loaded_ = uuid;
      foreign_ = false;
    }
  }
  if (old) old->stop(kStopLimit);
  if (result == 0) log(Level::event, bdf_ + " loaded " + to_string(uuid));
  return result;
}

int Card::on(Client& client, drm_xocl_ctx& request) {
  const std::lock_guard lock(mutex_);
  switch (request.op) {
    case XOCL_CTX_OP_ALLOC_CTX:
      return open_context(client, request);
    case XOCL_CTX_OP_FREE_CTX:
      return close_context(client, request);
    default:
      return -EINVAL;
  }
}

int Card::open_context(Client& client, const drm_xocl_ctx& request) {
  if (stuck_) return -EIO;
  if (!fabric_ || !same(loaded_, request.xclbin_id)) return -EBUSY;
  const std::uint32_t unit = request.cu_index;
  if (unit != XOCL_CTX_VIRT_CU_INDEX) {
    if (unit >= fabric_->compute_units()) return -EINVAL;
    const auto owner = exclusive_.find(unit);
    if (owner != exclusive_.end() && owner->second != &client) return -EBUSY;
    if ((request.flags & XOCL_CTX_EXCLUSIVE) != 0) {
      const bool shared = std::any_of(clients_.begin(), clients_.end(), [&](const auto& entry) {
        return entry.second->contexts.contains(unit);
      });
      if (shared) return -EBUSY;
      exclusive_[unit] = &client;
    }
  }
  ++client.contexts[unit];
  return 0;
}

int Card::close_context(Client& client, const drm_xocl_ctx& request) {
  const auto context = client.contexts.find(request.cu_index);
  if (context == client.contexts.end()) return -EINVAL;
  if (--context->second == 0) {
    client.contexts.erase(context);
    const auto owner = exclusive_.find(request.cu_index);
    if (owner != exclusive_.end() && owner->second == &client) exclusive_.erase(owner);
  }
  return 0;
}

int Card::execute(const ClientPointer& client, const drm_xocl_execbuf& request) {
  const std::uint32_t handle = request.exec_bo_handle;
  const BufferPointer packet = buffer(*client, handle);
  if (!packet || (packet->flags & buffer_flag::execution) == 0 || !packet->host) return -EINVAL;
  std::shared_ptr<Fabric> loaded;
  {
    const std::lock_guard lock(mutex_);
    if (stuck_) return -EIO;
    if (client->contexts.empty() || !fabric_ || foreign_) return -EINVAL;
    loaded = fabric_;
  }
  // Acquired, for the packet may have been a launch's that another thread finished.
  ert_packet head;
  head.header = std::atomic_ref(*reinterpret_cast<std::uint32_t*>(packet->host.data()))
                    .load(std::memory_order_acquire);
  if (sizeof(std::uint32_t) * (head.count + 1ull) > packet->bytes) return -EINVAL;
  switch (head.opcode) {
    case ERT_START_CU:
      return start_kernel(client, handle, packet, *loaded);
    case ERT_START_COPYBO:
      if (const int error = start_copy(*client, *packet)) return error;
      break;
    case ERT_ABORT: {
      ert_abort_cmd command;
      std::memcpy(&command, packet->host.data(), sizeof command);
      loaded->abort(*client, static_cast<std::uint32_t>(command.exec_bo_handle));
      break;
    }
    case ERT_CONFIGURE:
    case ERT_SK_CONFIG:
    case ERT_CU_STAT:
      break;
    default:
      log(Level::problem, bdf_ + ": command " + std::to_string(head.opcode) + " is not emulated");
      return -EINVAL;
  }
  finish_command(*packet, *client, ERT_CMD_STATE_COMPLETED);
  return 0;
}

// The packet is copied now, as the driver does: the caller may reuse it once its state says so.
int Card::start_kernel(const ClientPointer& client, std::uint32_t handle,
                       const BufferPointer& packet, Fabric& fabric) {
  const auto& command = *reinterpret_cast<const ert_start_kernel_cmd*>(packet->host.data());
  const std::size_t masks = 1 + command.extra_cu_masks;
  if (command.count < masks) return -EINVAL;
  const auto launch = std::make_shared<Launch>();
  launch->client = client;
  launch->packet = packet;
  launch->packet_handle = handle;
  const auto* words = reinterpret_cast<const std::uint32_t*>(packet->host.data()) + 1;
  for (std::size_t mask = 0; mask < masks; ++mask) {
    for (std::uint32_t bit = 0; bit < 32; ++bit) {
      if ((words[mask] >> bit & 1u) != 0) launch->compute_units.push_back(mask * 32 + bit);
    }
  }
  if (launch->compute_units.empty()) return -EINVAL;
  {
    const std::lock_guard lock(mutex_);
    for (const std::size_t unit : launch->compute_units) {
      if (unit >= fabric.compute_units() ||
          !client->contexts.contains(static_cast<std::uint32_t>(unit))) {
        return -EINVAL;
      }
    }
  }
  const auto* registers = reinterpret_cast<const std::byte*>(words + masks);
  launch->registers.assign(registers, registers + (command.count - masks) * 4);
  fabric.submit(launch);
  return 0;
}

// A copy from buffer to buffer inside the card.
int Card::start_copy(Client& client, const BufferObject& packet) {
  ert_start_copybo_cmd command;
  if (sizeof command > packet.bytes) return -EINVAL;
  std::memcpy(&command, packet.host.data(), sizeof command);
  const auto wide = [](std::uint32_t low, std::uint32_t high) {
    return static_cast<std::uint64_t>(high) << 32 | low;
  };
  const BufferPointer from = buffer(client, command.src_bo_hdl);
  const BufferPointer to = buffer(client, command.dst_bo_hdl);
  if (!from || !to) return -EINVAL;
  return copy(*from, wide(command.src_addr_lo, command.src_addr_hi), *to,
              wide(command.dst_addr_lo, command.dst_addr_hi), wide(command.size, command.size_hi));
}

}  // namespace flexllm::card
