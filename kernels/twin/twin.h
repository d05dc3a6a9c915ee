// The fast twin: both kernels as SIMD code for the host's processor, on the card's own buffers and
// layouts, with the bits of docs/numerics.md. The emulated card runs it in place of the hardware.
//
// run() may be called from several threads at once on disjoint results (a prefill and a decode
// launch); each call spreads over a shared pool of threads.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace flexllm::kernels::twin {

// A device buffer as the kernel sees it: where it starts, and how many bytes its bank holds from
// there on.
struct Span {
  std::byte* data = nullptr;
  size_t bytes = 0;
};

// The arguments of a kernel (docs/launch.md).
struct Buffers {
  Span desc;
  Span model;
  Span result;
  Span scratch;
  std::span<const Span> weights;
  std::span<const Span> kv;
};

// Maxima of the build that the twin stands for; a launch beyond them is refused.
struct Maxima {
  uint32_t rows = 0;
  uint32_t hidden = 0;
  uint32_t ffn = 0;
  uint32_t heads = 0;
  uint32_t kv_heads = 0;
  uint32_t head_dim = 0;
  uint32_t context = 0;
  uint32_t vocab = 0;
};

enum class Isa { scalar, avx2, avx512_vnni };

// The best that this processor has; FLEXLLM_TWIN_ISA=scalar|avx2|avx512_vnni lowers it.
Isa best_isa();
const char* to_string(Isa isa);

// Runs the launch in buffers.desc and writes the completion record. Returns its launch_status.
uint32_t run(const Buffers& buffers, const Maxima& maxima, Isa isa = best_isa());

}  // namespace flexllm::kernels::twin
