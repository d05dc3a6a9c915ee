#include "host/device.h"

#include <experimental/xrt_system.h>
#include <experimental/xrt_xclbin.h>
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdlib>
#include <nlohmann/json.hpp>
#include <utility>

#include "host/sysfs.h"

namespace flexllm::host {
namespace {

using Json = nlohmann::json;
using Kind = DeviceError::Kind;
namespace fs = std::filesystem;

tl::unexpected<DeviceError> fail(Kind kind, std::string message) {
  return tl::unexpected(DeviceError{kind, std::move(message)});
}

bool has_driver_library(const fs::path& xrt) {
  std::error_code ignored;
  return fs::exists(xrt / "lib" / "libxrt_core.so.2", ignored);
}

DeviceError cannot_open(const std::string& name, const std::exception& thrown) {
  std::error_code ignored;
  if (!fs::exists("/sys/bus/pci/drivers/xocl", ignored)) {
    return {Kind::not_found,
            "there is no card '" + name +
                "': the xocl driver is not loaded (install XRT's driver for the running kernel, or "
                "use the emulated card); XRT says: " +
                thrown.what()};
  }
  for (const DriverCard& card : driver_cards()) {
    if (card.access == DriverCard::Access::denied) {
      return {Kind::access_denied,
              card.node + " (card " + card.bdf +
                  ") may not be opened: add this user to the node's group (often 'render'), or "
                  "pass the node into the container with --device"};
    }
  }
  DeviceError error = device_error(Kind::not_found, "cannot open card '" + name + "'", thrown);
  error.message += " (flexllm doctor lists the cards)";
  return error;
}

std::string hex_errno(const std::exception& thrown) {
  const int number = error_number(thrown);
  return number == 0 ? "" : " (errno " + std::to_string(number) + ")";
}

DeviceError cannot_load(const fs::path& bitstream, const std::exception& thrown) {
  const std::string file = "cannot load " + bitstream.string();
  switch (error_number(thrown)) {
    case EBUSY:
      return {Kind::busy,
              file +
                  ": the card is in use with another bitstream, by another process or "
                  "by buffers that are still open; end that process or use another card"};
    case EPERM:
    case EACCES:
      return {Kind::access_denied, file + ": the driver does not let this user load bitstreams"};
    case EFAULT:
    case ENOTTY:
      return {Kind::bad_bitstream, file +
                                       ": the driver does not understand this XRT; the XRT of this "
                                       "program (or container) and the host's driver must be of "
                                       "matching versions"};
    case EINVAL:
    case ENOEXEC:
    case EOPNOTSUPP:
      return {Kind::bad_bitstream, file +
                                       ": the card refuses it; it was made for another shell, or "
                                       "is an emulation image on a real card, or the other way "
                                       "round" +
                                       hex_errno(thrown)};
    default:
      return device_error(Kind::bad_bitstream, file, thrown);
  }
}

tl::expected<xrt::xclbin, DeviceError> read_bitstream(const fs::path& path) {
  std::error_code ignored;
  if (!fs::is_regular_file(path, ignored)) {
    return fail(Kind::bad_bitstream, "there is no bitstream " + path.string());
  }
  try {
    return xrt::xclbin(path.string());
  } catch (const std::exception& error) {
    return fail(Kind::bad_bitstream,
                path.string() + " is not a bitstream (.xclbin): " + error.what());
  }
}

// The bitstream must have the kernels and connections that the memory map describes.
tl::expected<void, DeviceError> check(const xrt::xclbin& bitstream, const fs::path& path,
                                      const MemoryMap& map) {
  const auto differs = [&](const std::string& what) {
    return fail(Kind::bad_bitstream, path.string() + " does not match the memory map of '" +
                                         map.accelerator + "': " + what);
  };
  for (const KernelMap& kernel : map.kernels) {
    const std::string name = kernel.name + ":" + kernel.compute_unit;
    const xrt::xclbin::kernel found = bitstream.get_kernel(kernel.name);
    if (!found) return differs("it has no kernel '" + kernel.name + "'");
    const auto units = found.get_cus();
    const auto unit = std::find_if(units.begin(), units.end(),
                                   [&](const auto& u) { return u.get_name() == name; });
    if (unit == units.end()) return differs("it has no compute unit '" + name + "'");
    if (unit->get_num_args() != kernel.arguments.size()) {
      return differs("'" + name + "' has " + std::to_string(unit->get_num_args()) + " arguments");
    }
    for (const xrt::xclbin::arg& argument : unit->get_args()) {
      const KernelArgument& wanted = kernel.arguments.at(argument.get_index());
      const Bank& bank = map.banks[wanted.bank];
      const auto memories = argument.get_mems();
      const bool connected = std::any_of(memories.begin(), memories.end(), [&](const auto& m) {
        return m.get_tag() == bank.tag && m.get_size_kb() * 1024 == bank.bytes;
      });
      if (argument.get_name() != wanted.name || !connected) {
        return differs("argument '" + wanted.name + "' of '" + name + "' is not in " + bank.tag);
      }
    }
  }
  return {};
}

// XRT reports every sensor that some board has, with `is_present` saying whether this one does.
void add_sensor(std::map<std::string, double>& out, const std::string& name, const Json& sensor,
                const char* key) {
  if (sensor.value("is_present", std::string("true")) != "true") return;
  const Json value = sensor.value(key, Json());
  try {
    out[name] = value.is_string() ? std::stod(value.get<std::string>()) : value.get<double>();
  } catch (const std::exception&) {
    // "N/A" and the like: the board does not measure it.
  }
}

}  // namespace

void locate_xrt() {
  if (std::getenv("XILINX_XRT") != nullptr) return;
  std::error_code error;
  const fs::path folder = fs::read_symlink("/proc/self/exe", error).parent_path();
  const fs::path share = fs::path("share") / "flexllm" / "xrt";
  for (const fs::path& xrt : {fs::path("/opt/xilinx/xrt"), folder / share,
                              folder.parent_path() / share, fs::path(FLEXLLM_XRT_ROOT)}) {
    if (!has_driver_library(xrt)) continue;
    ::setenv("XILINX_XRT", xrt.c_str(), 0);
    return;
  }
}

std::vector<DriverCard> driver_cards() {
  const std::string driver = "/sys/bus/pci/drivers/xocl";
  std::vector<DriverCard> cards;
  for (const std::string& bdf : names_in(driver)) {
    if (std::count(bdf.begin(), bdf.end(), ':') != 2) continue;  // not a card: "bind", "module"
    DriverCard card{.bdf = bdf, .node = {}, .access = DriverCard::Access::no_node};
    for (const std::string& name : names_in("/sys/bus/pci/devices/" + bdf + "/drm")) {
      if (!name.starts_with("renderD")) continue;
      card.node = "/dev/dri/" + name;
      const int fd = ::open(card.node.c_str(), O_RDWR | O_CLOEXEC);
      card.access = fd >= 0                             ? DriverCard::Access::granted
                    : errno == EACCES || errno == EPERM ? DriverCard::Access::denied
                                                        : DriverCard::Access::no_node;
      if (fd >= 0) ::close(fd);
    }
    cards.push_back(std::move(card));
  }
  return cards;
}

bool card_on_bus() {
  if (!driver_cards().empty()) return true;
  // Others make devices with this vendor's number too, sound cards among them.
  constexpr const char* kXilinx = "0x10ee";
  constexpr const char* kAccelerator = "0x1200";
  const std::string bus = "/sys/bus/pci/devices/";
  const auto names = names_in(bus);
  return std::any_of(names.begin(), names.end(), [&](const std::string& bdf) {
    return first_line(bus + bdf + "/vendor") == kXilinx &&
           first_line(bus + bdf + "/class").starts_with(kAccelerator);
  });
}

tl::expected<std::vector<DeviceInfo>, DeviceError> list_devices() {
  locate_xrt();
  std::vector<DeviceInfo> devices;
  try {
    const unsigned count = xrt::system::enumerate_devices();
    for (unsigned index = 0; index < count; ++index) {
      DeviceInfo info{.index = index, .bdf = {}, .shell = {}};
      try {
        const xrt::device device(index);
        info.bdf = device.get_info<xrt::info::device::bdf>();
        info.shell = device.get_info<xrt::info::device::name>();
      } catch (const std::exception& error) {
        info.shell = std::string("does not answer: ") + error.what();
      }
      devices.push_back(std::move(info));
    }
  } catch (const std::exception& error) {
    return fail(Kind::not_found, std::string("XRT cannot be used: ") + error.what());
  }
  return devices;
}

Device::Device(xrt::device device, DeviceInfo info)
    : device_(std::move(device)), info_(std::move(info)) {}

tl::expected<Device, DeviceError> Device::open(const std::string& name) {
  locate_xrt();
  try {
    xrt::device device(name);
    DeviceInfo info;
    info.bdf = device.get_info<xrt::info::device::bdf>();
    info.shell = device.get_info<xrt::info::device::name>();
    if (device.get_info<xrt::info::device::offline>()) {
      return fail(Kind::lost, "card " + info.bdf + " is offline: it is being reset");
    }
    return Device(std::move(device), std::move(info));
  } catch (const std::exception& error) {
    return tl::unexpected(cannot_open(name, error));
  }
}

tl::expected<void, DeviceError> Device::load(const fs::path& path, const MemoryMap& map) {
  auto bitstream = read_bitstream(path);
  if (!bitstream) return tl::unexpected(bitstream.error());
  const std::string platform = bitstream->get_xsa_name();
  if (platform != info_.shell) {
    return fail(Kind::bad_bitstream, path.string() + " was made for the shell '" + platform +
                                         "'; card " + info_.bdf + " has '" + info_.shell + "'");
  }
  try {
    if (auto checked = check(*bitstream, path, map); !checked) return checked;
    bitstream_ = device_.load_xclbin(*bitstream);
  } catch (const std::exception& error) {
    return tl::unexpected(cannot_load(path, error));
  }
  return {};
}

tl::expected<xrt::kernel, DeviceError> Device::kernel(const KernelMap& map) const {
  const std::string name = map.name + ":{" + map.compute_unit + "}";
  try {
    xrt::kernel kernel(device_, bitstream_, name);
    for (size_t i = 0; i < map.arguments.size(); ++i) {
      const int group = kernel.group_id(static_cast<int>(i));
      if (group != static_cast<int>(map.arguments[i].bank)) {
        return fail(Kind::bad_bitstream, "argument '" + map.arguments[i].name + "' of " + name +
                                             " is wired to memory group " + std::to_string(group) +
                                             " instead of " +
                                             std::to_string(map.arguments[i].bank));
      }
    }
    return kernel;
  } catch (const std::exception& error) {
    const Kind kind = error_number(error) == EBUSY ? Kind::busy : Kind::bad_bitstream;
    return tl::unexpected(device_error(kind, "cannot open kernel " + name, error));
  }
}

std::map<std::string, double> Device::sensors() const {
  std::map<std::string, double> out;
  const auto parse = [](const std::string& text) { return Json::parse(text, nullptr, false); };
  try {
    const Json thermal = parse(device_.get_info<xrt::info::device::thermal>());
    for (const Json& sensor : thermal.value("thermals", Json::array())) {
      add_sensor(out, "thermal " + sensor.value("description", std::string("?")), sensor, "temp_C");
    }
    const Json electrical = parse(device_.get_info<xrt::info::device::electrical>());
    add_sensor(out, "power", electrical, "power_consumption_watts");
    const Json mechanical = parse(device_.get_info<xrt::info::device::mechanical>());
    for (const Json& fan : mechanical.value("fans", Json::array())) {
      add_sensor(out, "fan", fan, "speed_rpm");
    }
  } catch (const std::exception&) {
    // A shell without sensors, or a card that is gone: what was read so far is the answer.
  }
  return out;
}

std::vector<uint64_t> Device::used_bytes() const {
  std::vector<uint64_t> used;
  try {
    const Json memory = Json::parse(device_.get_info<xrt::info::device::memory>());
    for (const Json& bank : memory.at("board").at("memory").at("memories")) {
      const Json& bytes = bank.at("extended_info").at("usage").at("allocated_bytes");
      used.push_back(bytes.is_string() ? std::stoull(bytes.get<std::string>())
                                       : bytes.get<uint64_t>());
    }
  } catch (const std::exception&) {
    used.clear();
  }
  return used;
}

}  // namespace flexllm::host
