#include "host/telemetry.h"

#include <charconv>

#include "host/sysfs.h"

namespace flexllm::host {
namespace {

std::optional<double> number_in(const std::string& file) {
  const std::string line = first_line(file);
  double value = 0;
  const auto [end, error] = std::from_chars(line.data(), line.data() + line.size(), value);
  if (error != std::errc() || end == line.data()) return std::nullopt;
  return value;
}

}  // namespace

// The files of xocl's board controller (xmc), as libxrt_core reads them: microwatts and degrees. A
// controller that does not measure something says 0.
BoardReading DeviceTelemetry::board() const {
  BoardReading reading;
  if (bdf.empty()) return reading;
  const std::string card = "/sys/bus/pci/devices/" + bdf + "/";
  for (const std::string& name : names_in(card)) {
    if (!name.starts_with("xmc.")) continue;
    const auto microwatts = number_in(card + name + "/xmc_power");
    const auto celsius = number_in(card + name + "/xmc_fpga_temp");
    if (microwatts.value_or(0) > 0) reading.watts = *microwatts * 1e-6;
    if (celsius.value_or(0) > 0) reading.celsius = celsius;
  }
  return reading;
}

}  // namespace flexllm::host
