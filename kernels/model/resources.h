// DSPs, memories and logic that a design asks for, module by module, from the parallelism of its
// loops, and whether the device has them. Estimates before synthesis: docs/cycle-model.md says what
// an operation is taken to cost and where that comes from.
#pragma once

#include <string>
#include <vector>

#include "kernels/model/design.h"

namespace flexllm::kernels::model {

struct ModuleResources {
  std::string module;
  Resources use;
};

struct KernelResources {
  std::string kernel;
  std::vector<ModuleResources> modules;

  Resources total() const;
};

KernelResources estimate(const Accelerator& accelerator, const Kernel& kernel);

// All kernels of the accelerator within `share` of each kind of the device's usable resources, and
// no more AXI masters than it has. Throws Refused, which names what is over and by how much.
constexpr double kShare = 0.75;
Resources check_budget(const Accelerator& accelerator, double share = kShare);

}  // namespace flexllm::kernels::model
