// Faults on purpose: rules that say when the card misbehaves, from the file named by FLEXLLM_FAULTS
// or over the control socket. The reference of the rules is docs/emulated-card.md.
//
// A rule waits for its event on its card, kernel, bank or direction; counts those that match; and
// fires on the nth and later ones with its probability, at most `times` times. One generator with
// the script's seed decides, so a run with the same order of events repeats. Any thread.
#pragma once

#include <chrono>
#include <cstdint>
#include <mutex>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <random>
#include <string>
#include <vector>

namespace flexllm::card {

enum class FaultKind {
  hang,               // a launch that never ends; only a reset of the card frees its unit
  fail,               // a launch that ends in an error state and writes nothing
  slow,               // a launch or a DMA that waits before it starts
  sync_fails,         // a DMA that returns EIO
  bank_full,          // an allocation that finds no room
  access_denied,      // the render node may not be opened
  disappear,          // the card leaves the bus: every ioctl returns ENODEV
  foreign_bitstream,  // another bitstream is loaded underneath
};

enum class FaultEvent { launch, sync, allocate, open };

struct FaultRule {
  FaultKind kind = FaultKind::fail;
  FaultEvent event = FaultEvent::launch;
  std::optional<int> card;            // any card if empty
  std::string kernel;                 // any if empty; launches only
  std::string bank;                   // tag; any if empty; syncs and allocations only
  std::optional<bool> to_card;        // any if empty; syncs only
  std::uint64_t nth = 1;              // first matching event that may fire, from 1
  double probability = 1.0;           // of each
  std::uint64_t times = 1;            // at most; 0: without limit
  std::chrono::milliseconds wait{0};  // slow: before the kernel starts. hang: how long after an
                                      // abort the driver reports NORESPONSE; 0: never
};

// What happens, as far as a rule can ask.
struct FaultSite {
  int card = 0;
  std::string kernel = {};
  std::string bank = {};
  bool to_card = false;
};

class FaultScript {
 public:
  // Rules from a script, {"seed": n, "faults": [...]}. Throws std::runtime_error that names the
  // rule and the key.
  void load(const nlohmann::json& script);
  void add(const nlohmann::json& rule);
  void clear();

  // The first rule that fires for this event, if any.
  std::optional<FaultRule> fire(FaultEvent event, const FaultSite& site);

 private:
  struct Armed {
    FaultRule rule;
    std::uint64_t matched = 0;
    std::uint64_t fired = 0;
  };
  std::mutex mutex_;
  std::vector<Armed> rules_;
  std::mt19937_64 generator_{0};
};

}  // namespace flexllm::card
