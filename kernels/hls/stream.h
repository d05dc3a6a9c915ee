// Streams between the tasks of a dataflow region. C++14.
//
//   Fifo<T, Depth>  the object, local to the region
//   Stream<T>       what a task takes by reference: one task writes it, one task reads it
//
// To an HLS compiler both are hls::stream. In plain simulation they are the bounded, checked
// streams of simulation.h. Both have read(), write(value) and empty().
#pragma once

#include "kernels/hls/pragmas.h"

#if FLEXLLM_HLS_TYPES
#include <hls_stream.h>
#else
#include "kernels/hls/simulation.h"
#endif

namespace flexllm {
namespace kernels {

#if FLEXLLM_HLS_TYPES

template <typename T>
using Stream = hls::stream<T>;

#if defined(__VITIS_HLS__)
template <typename T, int Depth>
using Fifo = hls::stream<T, Depth>;  // derives from hls::stream<T>
#else
template <typename T, int Depth>
using Fifo = hls::stream<T>;
#endif

template <typename F, int N>
void name_streams(F (&)[N], const char*) {}

#else

template <typename T>
using Stream = simulation::Stream<T>;

template <typename T, int Depth>
using Fifo = simulation::Fifo<T, Depth>;

// Names an array of streams, for the messages of the simulation.
template <typename F, int N>
void name_streams(F (&streams)[N], const char* name) {
  for (int i = 0; i < N; ++i) streams[i].rename(name, i);
}

#endif

}  // namespace kernels
}  // namespace flexllm
