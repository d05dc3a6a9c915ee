// All emulated cards of this process, and what user space finds where: the PCI directory, the
// render nodes, their descriptors. There is one rack per process, made at the first look at a path
// that concerns it, and never destroyed (XRT closes its devices late). Any thread.
//
// FLEXLLM_EMULATED_CARDS: how many cards (1 to 8, default 1). FLEXLLM_EMULATED_DEVICE: which board
// (a name of configs/devices/, default u280). FLEXLLM_FAULTS: a fault script.
#pragma once

#include <atomic>
#include <map>
#include <memory>
#include <optional>
#include <shared_mutex>
#include <string>
#include <string_view>
#include <vector>

#include "host/card/card.h"
#include "host/card/control.h"
#include "host/card/fault.h"

namespace flexllm::card {

class Rack {
 public:
  static Rack& instance();

  // Cheap, and good before anything is initialised: whether a path or a descriptor can be one of
  // the rack's at all.
  static bool may_own(const char* path) {
    if (path == nullptr || path[0] != '/') return false;
    const std::string_view text(path);
    return text.starts_with("/sys/bus/pci/") || text.starts_with("/dev/dri/renderD");
  }
  static bool has_nodes() { return any_nodes_.load(std::memory_order_relaxed); }

  struct Entry {
    enum class Kind { elsewhere, missing, file, directory, node };
    Kind kind = Kind::elsewhere;
    std::string content = {};             // of a file
    std::vector<std::string> names = {};  // of a directory
    Card* card = nullptr;                 // of a node
  };
  Entry find(std::string_view path);

  int open_node(Card& card, int flags);  // a descriptor, or -errno
  Card* card_of(int fd);                 // null: not one of ours
  void forget(int fd);

  const std::vector<std::unique_ptr<Card>>& cards() const { return cards_; }
  Card* card_named(const std::string& index_or_bdf) const;  // null if there is none
  FaultScript& faults() { return faults_; }

 private:
  Rack();

  static inline constinit std::atomic<bool> any_nodes_{false};

  FaultScript faults_;
  std::vector<std::unique_ptr<Card>> cards_;
  std::shared_mutex nodes_mutex_;
  std::map<int, Card*> nodes_;
  std::unique_ptr<Control> control_;
};

}  // namespace flexllm::card
