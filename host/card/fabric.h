// What a loaded bitstream makes of the card: its banks, and compute units that take launches from
// one queue. One thread per compute unit runs its kernel; it holds the fabric, so that unloading
// can let go of a kernel that never returns. Any thread may call.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "host/card/bank.h"
#include "host/card/bitstream.h"
#include "host/card/buffer.h"
#include "host/card/fault.h"
#include "host/card/host_pool.h"

namespace flexllm::card {

// A command that starts a kernel on the first free one of some compute units.
struct Launch {
  std::shared_ptr<Client> client;
  std::shared_ptr<BufferObject> packet;  // execution buffer; its header receives the state
  std::uint32_t packet_handle = 0;
  std::vector<std::size_t> compute_units;
  std::vector<std::byte> registers;  // register file from offset 0
  std::atomic<bool> aborted{false};
};

// Writes `state` (an ert_cmd_state) into a command packet and wakes its client.
void finish_command(const BufferObject& packet, Client& client, std::uint32_t state);

class Fabric : public std::enable_shared_from_this<Fabric> {
 public:
  static constexpr std::uint64_t kRegisterBytes = 0x10000;

  struct Environment {
    int card = 0;
    FaultScript* faults = nullptr;
    std::function<void(FaultKind)> on_card_fault;  // disappear, foreign_bitstream
  };

  // Starts the compute units. Throws std::bad_alloc.
  static std::shared_ptr<Fabric> configure(Bitstream bitstream, HostPool& pool,
                                           Environment environment);
  Fabric(const Fabric&) = delete;
  Fabric& operator=(const Fabric&) = delete;

  const Bitstream& bitstream() const { return bitstream_; }
  std::size_t compute_units() const { return units_.size(); }
  const HostBlock& registers(std::size_t unit) const { return units_[unit].registers; }

  std::size_t banks() const { return banks_.size(); }
  std::shared_ptr<Bank> bank(std::size_t index) const;  // null: none, or not used
  std::shared_ptr<Bank> bank_at(std::uint64_t address, std::uint64_t bytes) const;

  void submit(std::shared_ptr<Launch> launch);

  // Drops a queued launch; asks a running kernel to stop. A hung one does not listen.
  void abort(const Client& client, std::uint32_t packet_handle);
  // Aborts all launches of a client and waits for them; false if one did not end in time.
  bool settle(const Client& client, std::chrono::milliseconds limit);
  // From here on no launch ends: the card is gone, or another design has taken its place.
  void vanish();
  // Ends the compute units; kernels that do not return within `limit` are left behind.
  void stop(std::chrono::milliseconds limit);

  struct UnitStatus {
    std::string name;
    std::uint64_t base = 0;
    bool busy = false;
    std::uint64_t launches = 0;
    double busy_seconds = 0;
  };
  std::vector<UnitStatus> status() const;

 private:
  using Clock = std::chrono::steady_clock;

  struct Unit {
    HostBlock registers;
    bool busy = false;
    std::uint64_t launches = 0;
    Clock::duration busy_time{};
    Clock::time_point started{};
  };
  struct Running {
    std::shared_ptr<Launch> launch;
    bool hung = false;
  };

  Fabric(Bitstream bitstream, HostPool& pool, Environment environment);
  void serve(std::size_t unit);
  std::shared_ptr<Launch> take(std::size_t unit);
  std::uint32_t execute(std::size_t unit, Launch& launch);
  int run_kernel(std::size_t unit, Launch& launch);
  void wait_interruptibly(const Launch& launch, std::chrono::milliseconds time);
  void hang(Launch& launch, std::chrono::milliseconds abort_limit);

  const Bitstream bitstream_;
  const Environment environment_;
  std::vector<std::shared_ptr<Bank>> banks_;

  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<Unit> units_;
  std::deque<std::shared_ptr<Launch>> queue_;
  std::vector<Running> running_;
  std::size_t threads_ = 0;
  bool stopping_ = false;
  bool vanished_ = false;
};

}  // namespace flexllm::card
