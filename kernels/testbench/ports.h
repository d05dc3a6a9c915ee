// Arguments of the testbenches' tops. C++14, for HLS compilers too.
#pragma once

#include "kernels/hls/stream.h"

namespace flexllm {
namespace kernels {

// A stream that a testbench makes, alone or in an array: as long as it has to be.
#if FLEXLLM_HLS_TYPES
template <typename T>
using Queue = Stream<T>;
#else
template <typename T>
using Queue = Fifo<T, 1>;  // bounded only inside a dataflow region
#endif

// Card memory of a top, on a port of its own; `words` is how much of it the testbench has, which
// cosim must know.
#if defined(__VITIS_HLS__)
#define HLS_TEST_MEMORY(argument, words) \
  HLS_PRAGMA(HLS interface m_axi port = argument bundle = argument offset = slave depth = words)
#else
#define HLS_TEST_MEMORY(argument, words)
#endif

}  // namespace kernels
}  // namespace flexllm
