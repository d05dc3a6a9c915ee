// The static part of a board: what the emulated card shows before a bitstream is loaded. The table
// of boards (`shells`, card_shells.h) is generated from configs/devices/.
#pragma once

#include <cstdint>
#include <span>

namespace flexllm::card {

struct BankRange {
  std::uint64_t base;
  std::uint64_t bytes;
};

struct Shell {
  const char* name;
  const char* board;
  const char* fpga;
  const char* vbnv;        // never that of a real shell: no card takes the other's bitstream
  const char* shell_uuid;  // with dashes
  std::uint32_t idcode;
  std::uint16_t vendor, device, subsystem_vendor, subsystem_device;  // PCI identity
  std::span<const BankRange> banks;
};

}  // namespace flexllm::card
