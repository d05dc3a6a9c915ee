#include "cli/device.h"

#include <fmt/format.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>
#include <string>
#include <string_view>
#include <vector>

#include "cli/companion.h"
#include "cli/exit_code.h"
#include "host/device.h"
#include "host/doctor.h"

namespace flexllm::cli {
namespace {

namespace fs = std::filesystem;

constexpr const char* kCardLibrary = "libflexllm_card.so";
constexpr const char* kCardReset = "bin/flexllm-card-reset";
constexpr const char* kEmulatedBitstream = "share/flexllm/u280-combined.xclbin";
constexpr const char* kSimulatedBitstream = "share/flexllm/u280-combined.csim.xclbin";
constexpr const char* kEmulatedMemoryMap = "share/flexllm/u280-combined.json";

std::string_view variable(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? std::string_view() : std::string_view(value);
}

fs::path program() { return fs::read_symlink("/proc/self/exe"); }

[[noreturn]] void restart_on_emulated_card() {
  const fs::path library = companion(fs::path("lib") / kCardLibrary);
  if (library.empty()) {
    throw Failure(kDevice, fmt::format("the emulated card, lib/{}, is not beside {}", kCardLibrary,
                                       program().string()));
  }
  host::locate_xrt();
  const std::string_view others = variable("LD_PRELOAD");
  const std::string preload =
      fmt::format("{}{}{}", library.string(), others.empty() ? "" : ":", others);
  ::setenv("LD_PRELOAD", preload.c_str(), 1);
  ::setenv("FLEXLLM_EMULATED_CARDS", "1", 0);
  ::setenv("FLEXLLM_CARD_CONTROL", fmt::format("@flexllm-card-{}", ::getpid()).c_str(), 0);
  const fs::path settings = fs::path(variable("XILINX_XRT")) / "xrt.ini";
  if (fs::exists(settings)) ::setenv("XRT_INI_PATH", settings.c_str(), 0);

  std::ifstream in("/proc/self/cmdline", std::ios::binary);
  std::string line(std::istreambuf_iterator<char>(in), {});
  std::vector<char*> arguments;
  for (size_t at = 0; at < line.size(); at += std::strlen(&line[at]) + 1) {
    arguments.push_back(&line[at]);
  }
  arguments.push_back(nullptr);
  ::execv(program().c_str(), arguments.data());
  throw Failure(kDevice,
                fmt::format("cannot start again on the emulated card: {}", std::strerror(errno)));
}

// A card that is there and cannot be used is for its operator to mend, not to be passed over.
[[noreturn]] void refuse_to_pass_over_a_card(const std::string& why) {
  std::string message = "there is a card, which cannot be used: " + why;
  host::EngineOptions first;
  for (const host::Finding& finding : host::examine(first)) {
    if (finding.level != host::Finding::Level::failure) continue;
    message = finding.what;
    if (!finding.mend.empty()) message += "; " + finding.mend;
    break;
  }
  throw Failure(kDevice, message + " (--device emulated does without a card)");
}

}  // namespace

bool on_emulated_card() { return variable("LD_PRELOAD").find(kCardLibrary) != std::string::npos; }

host::EngineOptions choose_device(const ModelOptions& options) {
  if (options.emulated_kernels != "twin" && options.emulated_kernels != "csim") {
    throw Failure(kUsage, "--emulated-kernels must be twin or csim");
  }
  const bool asked_for_emulated = options.device == "emulated";
  const bool any = options.device == "auto";
  if (!on_emulated_card() && (asked_for_emulated || any)) {
    if (asked_for_emulated || !host::card_on_bus()) restart_on_emulated_card();
    const auto card = host::Device::open("0");
    if (!card) refuse_to_pass_over_a_card(card.error().message);
  }
  const std::string device(asked_for_emulated || any ? "0" : options.device);

  host::EngineOptions engine;
  engine.device = device;
  engine.bitstream = options.bitstream;
  engine.memory_map = options.memory_map;
  engine.max_kv_bytes = options.max_kv_bytes;
  engine.launch_timeout = options.launch_timeout;
  engine.reset_command = options.reset_command;
  engine.reset_timeout = options.reset_timeout;
  if (on_emulated_card()) {
    fmt::print(stderr, "device: emulated card{}; no figure of it is a figure of a card\n",
               asked_for_emulated ? "" : " (no Alveo card was found)");
    const fs::path reset = companion(kCardReset);
    if (engine.reset_command.empty() && !reset.empty()) {
      engine.reset_command = fmt::format("'{}' {}", reset.string(), device);
    }
    if (engine.bitstream.empty()) {
      const char* bitstream =
          options.emulated_kernels == "csim" ? kSimulatedBitstream : kEmulatedBitstream;
      engine.bitstream = companion(bitstream);
      if (engine.memory_map.empty()) engine.memory_map = companion(kEmulatedMemoryMap);
      if (engine.bitstream.empty()) {
        throw Failure(kDevice, fmt::format("{} is not beside {}", bitstream, program().string()));
      }
    }
  } else {
    fmt::print(stderr, "device: card {}\n", device);
    if (engine.bitstream.empty()) throw Failure(kUsage, "a card needs --bitstream FILE.xclbin");
  }
  return engine;
}

}  // namespace flexllm::cli
