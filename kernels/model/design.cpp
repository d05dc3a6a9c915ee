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

LayerPrecisions uniform_precisions(uint32_t layers, const Precision& precision) {
  LayerPrecisions all;
  all.fill({{precision, layers}});
  return all;
}

uint32_t ModelShape::inputs(Matrix matrix) const {
  if (matrix == Matrix::output) return attention();
  return matrix == Matrix::down ? ffn : hidden;
}

uint32_t ModelShape::outputs(Matrix matrix) const {
  if (matrix == Matrix::qkv) return qkv_rows();
  if (matrix == Matrix::gate_up) return 2 * ffn;
  return matrix == Matrix::lm_head ? vocab : hidden;
}

uint32_t ModelShape::tiles(Matrix matrix) const {
  return matrix == Matrix::gate_up ? gate_up_tiles(ffn) : row_tiles(outputs(matrix));
}

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
