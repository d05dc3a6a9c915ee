#include "host/doctor.h"

#include <xrt/xrt_device.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <utility>

#include "host/arena.h"
#include "host/device.h"
#include "host/memory_map.h"
#include "host/selftest.h"
#include "host/sysfs.h"

namespace flexllm::host {
namespace {

namespace fs = std::filesystem;
using Level = Finding::Level;

constexpr double kHotDegrees = 95;  // Alveo cards lower their clocks from about 97

const char* kUseEmulated = "without a card, --device emulated computes the same results slowly";

class Examination {
 public:
  explicit Examination(const EngineOptions& options) : options_(options) {}

  std::vector<Finding> run() {
    if (library() && driver() && nodes()) {
      auto device = Device::open(options_.device);
      if (!device) {
        failure("card", device.error().message, mend_of(device.error().kind));
      } else {
        card(*device);
        if (!options_.bitstream.empty()) bitstream(*device);
      }
    }
    return std::move(findings_);
  }

 private:
  void good(const char* name, std::string what) {
    findings_.push_back({Level::good, name, std::move(what), {}});
  }
  void warning(const char* name, std::string what, std::string mend) {
    findings_.push_back({Level::warning, name, std::move(what), std::move(mend)});
  }
  bool failure(const char* name, std::string what, std::string mend) {
    findings_.push_back({Level::failure, name, std::move(what), std::move(mend)});
    return false;
  }

  static std::string mend_of(DeviceError::Kind kind) {
    using Kind = DeviceError::Kind;
    switch (kind) {
      case Kind::access_denied:
        return "usermod -aG render USER, then log in again; in a container, "
               "--device=/dev/dri/renderD<n>";
      case Kind::bad_bitstream:
        return "build the bitstream and its memory map for this card's shell and this version of "
               "flexllm";
      case Kind::busy:
        return "end the process that uses the card (fuser -v on its render node), or use another "
               "card";
      case Kind::lost:
      case Kind::launch_timeout:
        return "reset the card: xbutil reset --device BDF";
      case Kind::out_of_memory:
        return "end other processes that use the card's memory";
      default:
        return {};
    }
  }

  bool library() {
    locate_xrt();
    const char* xrt = std::getenv("XILINX_XRT");
    if (xrt == nullptr) {
      return failure("xrt", "no installation of XRT was found",
                     "install AMD's XRT (or Debian's libxrt1), or point XILINX_XRT to a folder "
                     "whose lib/ holds libxrt_core.so.2");
    }
    if (!fs::exists(fs::path(xrt) / "lib" / "libxrt_core.so.2")) {
      return failure("xrt",
                     "XILINX_XRT is " + std::string(xrt) + ", whose lib/ has no libxrt_core.so.2",
                     "unset XILINX_XRT, or source setup.sh of the XRT that is installed");
    }
    good("xrt", "XRT is in " + std::string(xrt));
    return true;
  }

  bool driver() {
    if (!driver_cards().empty()) return true;
    if (card_on_bus()) {
      return failure("driver",
                     "there is an AMD/Xilinx card on the PCI bus, but the xocl driver does "
                     "not serve it",
                     "modprobe xocl; if that fails, `dkms status` tells whether the driver was "
                     "built for the running kernel. A card without shell needs xbmgmt program "
                     "first");
    }
    return failure("driver",
                   "there is no Alveo card in this machine (or it is not passed into this "
                   "container)",
                   kUseEmulated);
  }

  bool nodes() {
    bool any = false;
    for (const DriverCard& card : driver_cards()) {
      switch (card.access) {
        case DriverCard::Access::granted:
          good("node", card.bdf + " is open to this user at " + card.node);
          any = true;
          break;
        case DriverCard::Access::denied:
          failure("node", card.node + " of " + card.bdf + " may not be opened by this user",
                  mend_of(DeviceError::Kind::access_denied));
          break;
        case DriverCard::Access::no_node:
          failure(
              "node", card.bdf + " has no render node that can be opened",
              "the card may be in reset or hung (dmesg says why); in a container, pass the node "
              "with --device");
          break;
      }
    }
    return any;
  }

  void card(const Device& device) {
    const bool emulated = device.info().shell.starts_with("emulated_");
    good("card", device.info().bdf + " answers with shell " + device.info().shell +
                     (emulated ? " (emulated: no figure of it is a figure of a card)" : ""));
    if (!emulated) versions(device);
    const std::map<std::string, double> sensors = device.sensors();
    std::string hottest;
    double degrees = 0;
    for (const auto& [name, value] : sensors) {
      if (name.starts_with("thermal ") && value > degrees) {
        hottest = name.substr(8);
        degrees = value;
      }
    }
    const std::string reading =
        hottest.empty() ? "the card reports no temperature"
                        : hottest + " is at " + std::to_string(static_cast<int>(degrees)) + " C";
    if (degrees > kHotDegrees) {
      warning("sensors", reading, "improve the air flow: a passive card needs a server's fans");
    } else {
      good("sensors", reading);
    }
  }

  // 2.13 and 2.14 speak the same language; others renumber the driver's calls.
  void versions(const Device& device) {
    const std::string driver = first_line("/sys/module/xocl/version");
    std::string library;
    try {
      library = nlohmann::json::parse(device.xrt().get_info<xrt::info::device::host>())
                    .value("version", "");
    } catch (const std::exception&) {
      library.clear();
    }
    if (driver.empty() || library.empty()) return;
    const auto family = [](const std::string& version) {
      const std::string release = version.substr(0, version.find('.', version.find('.') + 1));
      return release == "2.14" ? std::string("2.13") : release;
    };
    const std::string what = "XRT " + library + " with driver " + driver;
    if (family(driver) == family(library)) {
      good("versions", what);
    } else {
      warning("versions", what + ": they may not understand each other",
              "use the XRT release of the driver, also in the container");
    }
  }

  void bitstream(Device& device) {
    fs::path map_path = options_.memory_map;
    if (map_path.empty()) map_path = fs::path(options_.bitstream).replace_extension(".json");
    const auto map = read_memory_map(map_path);
    if (!map) {
      failure("bitstream", map.error().message, mend_of(map.error().kind));
      return;
    }
    if (auto loaded = device.load(options_.bitstream, *map); !loaded) {
      failure("bitstream", loaded.error().message, mend_of(loaded.error().kind));
      return;
    }
    for (const KernelMap& kernel_map : map->kernels) {
      auto kernel = device.kernel(kernel_map);
      if (!kernel) {
        failure("bitstream", kernel.error().message, mend_of(kernel.error().kind));
        return;
      }
      good("bitstream", "kernel " + kernel_map.name + " of '" + map->accelerator +
                            "' is there, every argument in its bank");
      if (&kernel_map == &map->kernels.back()) memory(device, *map);
    }
  }

  void memory(const Device& device, const MemoryMap& map) {
    const std::vector<uint64_t> used = device.used_bytes();
    uint64_t mebibytes = 0;
    for (const uint64_t bytes : used) mebibytes += bytes >> 20;
    if (mebibytes > 0) {
      warning("memory",
              "other processes hold " + std::to_string(mebibytes) + " MiB of the card's memory",
              "the KV cache will be smaller, or the model will not fit, until they end");
    }
    const auto opened = CardMemory::open(
        device, map.banks, map.kernels.front().arguments[kDescArgument].bank, options_.card_copies);
    if (!opened) {
      failure("memory", opened.error().message, mend_of(opened.error().kind));
      return;
    }
    good("memory", std::string("weights reach the card ") + to_string(opened->copy_path()));
  }

  const EngineOptions& options_;
  std::vector<Finding> findings_;
};

}  // namespace

const char* to_string(Finding::Level level) {
  switch (level) {
    case Level::good:
      return "ok";
    case Level::warning:
      return "warning";
    case Level::failure:
      return "failure";
  }
  return "unknown";
}

std::vector<Finding> examine(const EngineOptions& options) { return Examination(options).run(); }

Finding examine_results(const EngineOptions& options) {
  Finding finding{Level::failure, "selftest", {}, {}};
  try {
    const auto report = run_selftest(options);
    if (!report) {
      finding.what = report.error().message;
    } else if (report->passed) {
      finding.level = Level::good;
      finding.what = std::to_string(report->launches) + " launches gave the bits of the twin" +
                     (report->compared_pages ? ", KV pages too" : "; KV pages could not be read");
    } else {
      finding.what = "the card computes something else than the twin: " + report->difference;
      finding.mend =
          "check that bitstream and program are of the same commit; if they are, do not "
          "use this card for inference";
    }
  } catch (const std::exception& error) {
    finding.what = std::string("the self-test could not be run: ") + error.what();
  }
  return finding;
}

bool healthy(const std::vector<Finding>& findings) {
  return std::none_of(findings.begin(), findings.end(),
                      [](const Finding& finding) { return finding.level == Level::failure; });
}

}  // namespace flexllm::host
