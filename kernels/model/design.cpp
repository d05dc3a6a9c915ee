#include "kernels/model/design.h"

#include <algorithm>
#include <cctype>

namespace flexllm::kernels::model {
namespace {

bool of_family(const Port& port, const std::string& family) {
  return port.name.starts_with(family) &&
         std::all_of(port.name.begin() + static_cast<std::ptrdiff_t>(family.size()),
                     port.name.end(), [](unsigned char c) { return std::isdigit(c) != 0; });
}

}  // namespace

const Port& Kernel::port(const std::string& family, uint32_t number) const {
  for (const Port& port : ports) {
    if (of_family(port, family) && number-- == 0) return port;
  }
  throw Refused("kernel '" + name + "' has no port '" + family + "'");
}

uint32_t Kernel::count(const std::string& family) const {
  return static_cast<uint32_t>(std::count_if(
      ports.begin(), ports.end(), [&](const Port& port) { return of_family(port, family); }));
}

Resources Device::usable() const {
  Resources all;
  for (const Slot& slot : slots) all += slot.usable;
  return all;
}

const Kernel* Accelerator::kernel(Stage stage) const {
  for (const Kernel& kernel : kernels) {
    if (kernel.stage == stage) return &kernel;
  }
  return nullptr;
}

double port_bytes_per_cycle(const Device& device, const Kernel& kernel, const Port& port) {
  double slowest = port.bits / 8.0;
  for (const uint32_t bank : port.banks) {
    slowest = std::min(slowest, device.banks.at(bank).gb_per_s * 1000.0 / kernel.clock_mhz);
  }
  return slowest;
}

}  // namespace flexllm::kernels::model
