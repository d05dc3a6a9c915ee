// Card memory as the kernels reach it through their AXI ports: one word a call. C++14.
//
// Loops that read or write ascending addresses become bursts; everything else pays the latency of
// the memory. A buffer is reached only through these two, so that a C simulation can count the time
// of its port.
#pragma once

#include <cstdint>

#include "kernels/hls/word.h"

namespace flexllm {
namespace kernels {

inline Word read_word(const Word* buffer, uint32_t at) {
#if !FLEXLLM_HLS_TYPES
  simulation::time_read(buffer + at);
#endif
  return buffer[at];
}

inline void write_word(Word* buffer, uint32_t at, const Word& word) {
#if !FLEXLLM_HLS_TYPES
  simulation::time_write(buffer + at);
#endif
  buffer[at] = word;
}

}  // namespace kernels
}  // namespace flexllm
