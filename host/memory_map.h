// What an accelerator build looks like from the host: its maxima, its memory banks, and in which
// bank each kernel argument lies. Read from the JSON that scripts/accelerator.py writes beside the
// bitstream. A plain value.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <tl/expected.hpp>
#include <vector>

#include "host/device_error.h"

namespace flexllm::host {

struct Bank {
  uint32_t index = 0;  // in the bitstream's memory topology
  std::string tag;     // "HBM[3]"
  uint64_t bytes = 0;
};

struct KernelArgument {
  std::string name;   // "desc", "w3", ...
  uint32_t bank = 0;  // index of its Bank
};

struct KernelMap {
  std::string name;          // "prefill" or "decode"
  std::string compute_unit;  // "prefill_1"
  std::vector<KernelArgument> arguments;
};

// Position of each argument (docs/launch.md); w0.. and kv0.. follow.
enum : uint32_t { kDescArgument, kModelArgument, kResultArgument, kScratchArgument, kArenas };

struct MemoryMap {
  // Largest sizes that the kernels of this build take.
  struct Maxima {
    uint32_t hidden = 0;
    uint32_t ffn = 0;
    uint32_t heads = 0;
    uint32_t kv_heads = 0;
    uint32_t head_dim = 0;
    uint32_t batch = 0;         // rows of a decode launch
    uint32_t prefill_rows = 0;  // rows of a prefill launch
    uint32_t context = 0;
    uint32_t vocab = 0;
  };

  std::string accelerator;
  uint32_t weight_streams = 0;
  uint32_t kv_streams = 0;
  Maxima maxima;
  std::vector<Bank> banks;
  std::vector<KernelMap> kernels;

  const KernelMap* kernel(std::string_view name) const;  // nullptr: this build has none
  uint32_t weight_argument(uint32_t stream) const { return kArenas + stream; }
  uint32_t kv_argument(uint32_t stream) const { return kArenas + weight_streams + stream; }
};

// `bad_bitstream` when the file cannot be read, is not a memory map, or contradicts itself.
tl::expected<MemoryMap, DeviceError> read_memory_map(const std::filesystem::path& path);

}  // namespace flexllm::host
