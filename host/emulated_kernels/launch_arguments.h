// The buffers of a launch, from the arguments that the emulated card decodes. For kernel libraries.
#pragma once

#include <array>
#include <cerrno>
#include <cstdint>

#include "host/card/kernel_abi.h"
#include "kernels/twin/twin.h"

namespace flexllm::host {

// The buffers of a launch: desc, model, result, scratch, then the arenas (docs/launch.md).
template <int WeightStreams, int KvStreams>
struct LaunchArguments {
  std::array<kernels::twin::Span, WeightStreams> weights;
  std::array<kernels::twin::Span, KvStreams> kv;
  kernels::twin::Buffers buffers;

  // 0, or the error that ends the launch.
  int read(const card::Call& call) {
    constexpr std::size_t kFirstArena = 4;
    if (call.arguments() != kFirstArena + weights.size() + kv.size()) {
      call.report("the bitstream has another number of arguments than this build");
      return -EINVAL;
    }
    bool decoded = true;
    const auto span = [&](std::size_t argument) {
      const auto buffer = call.buffer<std::byte>(argument);
      decoded = decoded && buffer.data != nullptr;
      return kernels::twin::Span{buffer.data, buffer.bytes};
    };
    for (std::size_t i = 0; i < weights.size(); ++i) weights[i] = span(kFirstArena + i);
    for (std::size_t i = 0; i < kv.size(); ++i) kv[i] = span(kFirstArena + weights.size() + i);
    buffers = {.desc = span(0),
               .model = span(1),
               .result = span(2),
               .scratch = span(3),
               .weights = weights,
               .kv = kv};
    if (!decoded) call.report("an address argument lies in no bank");
    return decoded ? 0 : -EFAULT;
  }
};

}  // namespace flexllm::host
