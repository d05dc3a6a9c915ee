#include "host/card/fabric.h"

#include <ert.h>

#include <algorithm>
#include <cstring>
#include <thread>
#include <utility>

#include "host/card/log.h"

namespace flexllm::card {
namespace {

// Control register of a compute unit (ap_ctrl_chain).
constexpr std::uint32_t kStart = 1;
constexpr std::uint32_t kDone = 2;
constexpr std::uint32_t kIdle = 4;
constexpr std::size_t kFirstArgument = 0x10;

void set_control(const HostBlock& registers, std::uint32_t value) {
  std::atomic_ref(*reinterpret_cast<std::uint32_t*>(registers.data())).store(value);
}

struct CallContext {
  const Fabric* fabric;
  const Launch* launch;
  const char* unit;
};

flexllm_card_region translate(void* context, std::uint64_t address) {
  const auto bank = static_cast<CallContext*>(context)->fabric->bank_at(address, 1);
  if (!bank) return {nullptr, 0};
  const Region region = bank->at(address);
  return {region.data, region.bytes};
}

int cancelled(void* context) { return static_cast<CallContext*>(context)->launch->aborted ? 1 : 0; }

void report(void* context, const char* sentence) {
  log(Level::problem, std::string(static_cast<CallContext*>(context)->unit) + ": " + sentence);
}

}  // namespace

void finish_command(const BufferObject& packet, Client& client, std::uint32_t state) {
  const std::atomic_ref header(reinterpret_cast<ert_packet*>(packet.host.data())->header);
  header.store((header.load() & ~0xFu) | state, std::memory_order_release);
  client.signal();
}

std::shared_ptr<Fabric> Fabric::configure(Bitstream bitstream, HostPool& pool,
                                          Environment environment) {
  std::shared_ptr<Fabric> fabric(new Fabric(std::move(bitstream), pool, std::move(environment)));
  fabric->threads_ = fabric->units_.size();
  for (std::size_t i = 0; i < fabric->units_.size(); ++i) {
    std::thread([fabric, i] { fabric->serve(i); }).detach();
  }
  return fabric;
}

Fabric::Fabric(Bitstream bitstream, HostPool& pool, Environment environment)
    : bitstream_(std::move(bitstream)), environment_(std::move(environment)) {
  for (const BankDescription& bank : bitstream_.banks) {
    banks_.push_back(bank.used ? std::make_shared<Bank>(bank.tag, bank.base, bank.bytes) : nullptr);
  }
  for (std::size_t i = 0; i < bitstream_.compute_units.size(); ++i) {
    units_.push_back({.registers = pool.allocate(kRegisterBytes)});
    set_control(units_.back().registers, kIdle);
  }
}

std::shared_ptr<Bank> Fabric::bank(std::size_t index) const {
  return index < banks_.size() ? banks_[index] : nullptr;
}

std::shared_ptr<Bank> Fabric::bank_at(std::uint64_t address, std::uint64_t bytes) const {
  for (const auto& bank : banks_) {
    if (bank && bank->holds(address, bytes)) return bank;
  }
  return nullptr;
}

void Fabric::submit(std::shared_ptr<Launch> launch) {
  const std::lock_guard lock(mutex_);
  queue_.push_back(std::move(launch));
  changed_.notify_all();
}

void Fabric::abort(const Client& client, std::uint32_t packet_handle) {
  std::shared_ptr<Launch> dropped;
  {
    const std::lock_guard lock(mutex_);
    const auto meant = [&](const Launch& launch) {
      return launch.client.get() == &client && launch.packet_handle == packet_handle;
    };
    const auto queued = std::find_if(queue_.begin(), queue_.end(),
                                     [&](const auto& launch) { return meant(*launch); });
    if (queued != queue_.end()) {
      dropped = *queued;
      queue_.erase(queued);
    }
    for (const Running& running : running_) {
      if (meant(*running.launch)) running.launch->aborted = true;
    }
    changed_.notify_all();
  }
  if (dropped) finish_command(*dropped->packet, *dropped->client, ERT_CMD_STATE_ABORT);
}

bool Fabric::settle(const Client& client, std::chrono::milliseconds limit) {
  std::unique_lock lock(mutex_);
  const auto of_client = [&](const Launch& launch) { return launch.client.get() == &client; };
  std::erase_if(queue_, [&](const auto& launch) { return of_client(*launch); });
  for (const Running& running : running_) {
    if (of_client(*running.launch)) running.launch->aborted = true;
  }
  changed_.notify_all();
  const auto still = [&](const Running& running) { return of_client(*running.launch); };
  const auto only_hung = [&] {
    return std::none_of(running_.begin(), running_.end(),
                        [&](const Running& r) { return still(r) && !r.hung; });
  };
  changed_.wait_for(lock, limit, only_hung);
  return std::none_of(running_.begin(), running_.end(), still);
}

void Fabric::vanish() {
  const std::lock_guard lock(mutex_);
  vanished_ = true;
  queue_.clear();
  for (const Running& running : running_) running.launch->aborted = true;
  changed_.notify_all();
}

void Fabric::stop(std::chrono::milliseconds limit) {
  std::unique_lock lock(mutex_);
  stopping_ = true;
  queue_.clear();
  for (const Running& running : running_) running.launch->aborted = true;
  changed_.notify_all();
  changed_.wait_for(lock, limit, [&] { return threads_ == 0; });
}

std::vector<Fabric::UnitStatus> Fabric::status() const {
  const std::lock_guard lock(mutex_);
  std::vector<UnitStatus> out;
  for (std::size_t i = 0; i < units_.size(); ++i) {
    const Unit& unit = units_[i];
    Clock::duration busy = unit.busy_time;
    if (unit.busy) busy += Clock::now() - unit.started;
    out.push_back({bitstream_.compute_units[i].name, bitstream_.compute_units[i].base, unit.busy,
                   unit.launches, std::chrono::duration<double>(busy).count()});
  }
  return out;
}

// The thread of one compute unit.
void Fabric::serve(std::size_t index) {
  while (const std::shared_ptr<Launch> launch = take(index)) {
    const std::uint32_t state = execute(index, *launch);
    bool ends = false;
    {
      const std::lock_guard lock(mutex_);
      Unit& unit = units_[index];
      unit.busy = false;
      unit.busy_time += Clock::now() - unit.started;
      set_control(unit.registers, kDone | kIdle);
      std::erase_if(running_, [&](const Running& r) { return r.launch == launch; });
      ends = !vanished_ && !stopping_;
      changed_.notify_all();
    }
    if (ends) finish_command(*launch->packet, *launch->client, state);
  }
}

// The next launch for a compute unit, or null when the fabric stops.
std::shared_ptr<Launch> Fabric::take(std::size_t index) {
  std::unique_lock lock(mutex_);
  auto next = queue_.end();
  changed_.wait(lock, [&] {
    next = std::find_if(queue_.begin(), queue_.end(), [&](const auto& launch) {
      const auto& units = launch->compute_units;
      return std::find(units.begin(), units.end(), index) != units.end();
    });
    return stopping_ || next != queue_.end();
  });
  if (stopping_) {
    --threads_;
    changed_.notify_all();
    return nullptr;
  }
  std::shared_ptr<Launch> launch = std::move(*next);
  queue_.erase(next);
  running_.push_back({launch});
  Unit& unit = units_[index];
  unit.busy = true;
  unit.started = Clock::now();
  ++unit.launches;
  if (launch->registers.size() > kFirstArgument) {
    std::memcpy(unit.registers.data() + kFirstArgument, launch->registers.data() + kFirstArgument,
                launch->registers.size() - kFirstArgument);
  }
  set_control(unit.registers, kStart);
  return launch;
}

std::uint32_t Fabric::execute(std::size_t index, Launch& launch) {
  const ComputeUnitDescription& unit = bitstream_.compute_units[index];
  const std::string& kernel = bitstream_.kernels[unit.kernel].name;
  int result = 0;
  bool runs = true;
  if (const auto fault = environment_.faults->fire(FaultEvent::launch,
                                                   {.card = environment_.card, .kernel = kernel})) {
    log(Level::problem, "fault in a launch of " + unit.name);
    switch (fault->kind) {
      case FaultKind::slow:
        wait_interruptibly(launch, fault->wait);
        break;
      case FaultKind::hang:
        hang(launch, fault->wait);
        runs = false;
        break;
      case FaultKind::fail:
        result = -EIO;
        runs = false;
        break;
      default:
        environment_.on_card_fault(fault->kind);
        runs = false;
    }
  }
  if (runs && !launch.aborted) result = run_kernel(index, launch);
  if (launch.aborted) return ERT_CMD_STATE_ABORT;
  return result == 0 ? ERT_CMD_STATE_COMPLETED : ERT_CMD_STATE_ERROR;
}

int Fabric::run_kernel(std::size_t index, Launch& launch) {
  const ComputeUnitDescription& unit = bitstream_.compute_units[index];
  const KernelDescription& kernel = bitstream_.kernels[unit.kernel];
  if (kernel.entry == nullptr) {
    log(Level::problem, unit.name + ": the bitstream has no code for this kernel");
    return -ENOSYS;
  }
  CallContext context{this, &launch, unit.name.c_str()};
  const HostBlock& registers = units_[index].registers;
  const flexllm_card_call call{
      .abi_version = kAbiVersion,
      .argument_count = static_cast<std::uint32_t>(kernel.arguments.size()),
      .arguments = kernel.arguments.data(),
      .registers = reinterpret_cast<const unsigned char*>(registers.data()),
      .register_bytes = registers.bytes(),
      .compute_unit = unit.name.c_str(),
      .context = &context,
      .translate = translate,
      .cancelled = cancelled,
      .report = report,
  };
  return kernel.entry(&call);
}

void Fabric::wait_interruptibly(const Launch& launch, std::chrono::milliseconds time) {
  std::unique_lock lock(mutex_);
  changed_.wait_for(lock, time, [&] { return stopping_ || launch.aborted.load(); });
}

// The unit stays taken until the fabric stops. An abort does not reach the kernel; the driver can
// only give up waiting for it.
void Fabric::hang(Launch& launch, std::chrono::milliseconds abort_limit) {
  std::unique_lock lock(mutex_);
  for (Running& running : running_) {
    if (running.launch.get() == &launch) running.hung = true;
  }
  changed_.notify_all();
  changed_.wait(lock, [&] { return stopping_ || launch.aborted.load(); });
  if (!stopping_ && abort_limit.count() > 0) {
    changed_.wait_for(lock, abort_limit, [&] { return stopping_; });
    if (!stopping_ && !vanished_) {
      finish_command(*launch.packet, *launch.client, ERT_CMD_STATE_NORESPONSE);
    }
  }
  changed_.wait(lock, [&] { return stopping_; });
}

}  // namespace flexllm::card
