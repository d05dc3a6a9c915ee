// An emulated bitstream, taken apart: memory topology, compute units, kernels and the library that
// holds their code. Every size and offset of the image is checked; errors say what is wrong and
// carry the errno that the driver answers with.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <stdexcept>
#include <string>
#include <vector>

#include "host/card/kernel_abi.h"

namespace flexllm::card {

class BitstreamError : public std::runtime_error {
 public:
  BitstreamError(int error, const std::string& why) : std::runtime_error(why), error_(error) {}
  int error() const { return error_; }  // an errno

 private:
  int error_;
};

using Uuid = std::array<unsigned char, 16>;
std::string to_string(const Uuid& uuid);  // with dashes

// A shared library opened from memory. The file behind it stays open as long as the library, so
// that its name is not reused and sanitizers can read its symbols.
class KernelLibrary {
 public:
  // Throws BitstreamError.
  explicit KernelLibrary(std::span<const std::byte> image);
  ~KernelLibrary();
  KernelLibrary(const KernelLibrary&) = delete;
  KernelLibrary& operator=(const KernelLibrary&) = delete;

  flexllm_card_kernel find(const std::string& kernel) const;  // null if there is none

 private:
  int fd_ = -1;
  void* handle_ = nullptr;
};

struct BankDescription {
  std::string tag;
  std::uint64_t base = 0;
  std::uint64_t bytes = 0;
  bool used = false;
};

struct KernelDescription {
  std::string name;
  std::vector<flexllm_card_argument> arguments;
  flexllm_card_kernel entry = nullptr;  // null: a launch fails
};

struct ComputeUnitDescription {
  std::string name;  // "kernel:compute_unit"
  std::uint64_t base = 0;
  std::size_t kernel = 0;  // index into Bitstream::kernels
};

struct Bitstream {
  Uuid uuid{};
  std::vector<BankDescription> banks;
  std::vector<KernelDescription> kernels;
  std::vector<ComputeUnitDescription> compute_units;            // in the order of their interrupts
  std::string mem_topology, group_topology, ip_layout, clocks;  // raw sections, for sysfs
  std::shared_ptr<const KernelLibrary> library;
};

// `image` is the xclbin and `kernel_table` what libxrt_core made of its XML metadata (a packed
// sequence of kernel_info); `vbnv` is the shell that it must be made for. Throws BitstreamError.
Bitstream parse_bitstream(std::span<const std::byte> image, std::span<const std::byte> kernel_table,
                          const std::string& vbnv);

}  // namespace flexllm::card
