// Which slot of the device each part of a design goes to, so that no slot is fuller than a share of
// what the shell leaves of it. Estimated from resources.h; Vivado places as it likes. Pure
// functions.
#pragma once

#include <string>
#include <vector>

#include "kernels/model/resources.h"

namespace flexllm::kernels::model {

// What is placed as a whole: an array with its weights, a KV engine, a module.
struct Piece {
  std::string kernel;
  std::string unit;
  std::string name;  // the unit's, with a number if there are several
  Resources use;
  std::string home;  // die of its memory bank; empty: it has no AXI master, or the die is no matter
  uint32_t slot = 0;
};

struct Placement {
  std::vector<Piece> pieces;
  std::vector<Resources> used;  // by slot
  uint32_t ports_away = 0;      // AXI masters on another die than their bank
  std::string refusal;          // which slot is too full; empty: none
};

constexpr double kShare =
    0.75;  // of each kind of a slot's resources: what designs close timing with

// Deals the pieces of all kernels, the largest first, to the slots: to the die of its memory bank
// if the piece fits there, else to any; there to the slot that stays emptiest. Then moves and
// exchanges pieces of slots that are too full. Deterministic.
Placement place(const Accelerator& accelerator, const std::vector<KernelResources>& kernels,
                double share, uint32_t attempts);

// The same, after a look at the AXI masters. Throws Refused, which names the field, and the slot
// and kind that are over.
Placement place_or_refuse(const Accelerator& accelerator,
                          const std::vector<KernelResources>& kernels, double share = kShare);

}  // namespace flexllm::kernels::model
