// A card: finding it, opening it, loading a bitstream into it, reading its sensors. Every failure
// is a DeviceError with a sentence that says what to do. Owned by one thread; the card's render
// node stays open until the Device and everything made from it (kernels, runs, buffers) is gone.
#pragma once

#include <xrt/xrt_device.h>
#include <xrt/xrt_kernel.h>
#include <xrt/xrt_uuid.h>

#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <tl/expected.hpp>
#include <vector>

#include "host/device_error.h"
#include "host/memory_map.h"

namespace flexllm::host {

// XRT loads its driver library from $XILINX_XRT/lib. When the variable is not set this sets it to
// an installation that has one: /opt/xilinx/xrt, or the folder that the build made for Debian's
// packages. Called before the first use of XRT, while the program has one thread.
void locate_xrt();

struct DeviceInfo {
  uint32_t index = 0;
  std::string bdf;    // "0000:d8:00.1"
  std::string shell;  // "xilinx_u280_gen3x16_xdma_base_1"
};

// A card as the xocl driver shows it, whether XRT can use it or not.
struct DriverCard {
  enum class Access { granted, denied, no_node };
  std::string bdf;
  std::string node;  // "/dev/dri/renderD128"; empty if the driver made none
  Access access = Access::no_node;
};
std::vector<DriverCard> driver_cards();

// Whether there is an AMD/Xilinx accelerator card on the PCI bus, with a driver or without.
bool card_on_bus();

// Cards whose driver answers; `not_found` if XRT itself cannot be used.
tl::expected<std::vector<DeviceInfo>, DeviceError> list_devices();

class Device {
 public:
  // `name` is an index ("0") or a BDF.
  static tl::expected<Device, DeviceError> open(const std::string& name);

  // Loads the bitstream, unless the card holds it already, and checks that it is what the memory
  // map describes: kernels, compute units, and the bank of every argument.
  tl::expected<void, DeviceError> load(const std::filesystem::path& bitstream,
                                       const MemoryMap& map);

  tl::expected<xrt::kernel, DeviceError> kernel(const KernelMap& map) const;

  const xrt::device& xrt() const { return device_; }
  const DeviceInfo& info() const { return info_; }

  // What the card measures now: "thermal FPGA" in degrees C, "power" in W, "fan" in rpm; absent
  // where the shell does not say.
  std::map<std::string, double> sensors() const;

  // Bytes of each bank that are allocated by anyone, by bank index; empty if the driver does not
  // say. Takes about a second: XRT collects much else for it.
  std::vector<uint64_t> used_bytes() const;

 private:
  Device(xrt::device device, DeviceInfo info);

  xrt::device device_;
  DeviceInfo info_;
  xrt::uuid bitstream_;
};

}  // namespace flexllm::host
