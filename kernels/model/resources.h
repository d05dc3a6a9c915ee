// DSPs, memories and logic that a design asks for, module by module, from the parallelism of its
// loops. Estimates before synthesis: docs/cycle-model.md says what an operation is taken to cost
// and where that comes from.
#pragma once

#include <string>
#include <vector>

#include "kernels/model/design.h"

namespace flexllm::kernels::model {

// A module of a kernel. Modules of the same unit are placed together, copy by copy.
struct ModuleResources {
  std::string module;
  std::string unit;
  uint32_t copies;
  Resources each;
  std::string port;  // family of the AXI master that every copy holds; empty: none

  Resources use() const { return each * copies; }
};

struct KernelResources {
  std::string kernel;
  std::vector<ModuleResources> modules;

  Resources total() const;
};

KernelResources estimate(const Accelerator& accelerator, const Kernel& kernel);

// All kernels of an accelerator.
Resources total(const std::vector<KernelResources>& kernels);

}  // namespace flexllm::kernels::model
