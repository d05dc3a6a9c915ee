// Stands before kernels/hls/pragmas.h in the include path of kernel_subset.py: the directives
// become calls, which are seen in clang's AST.
#pragma once

#define FLEXLLM_HLS_TYPES 1

namespace hls_marker {
inline void unroll() {}
inline void unroll_by() {}
inline void pipeline() {}
inline void trips() {}
inline void dataflow() {}
inline void task() {}
}  // namespace hls_marker

#define HLS_UNROLL_AHEAD
#define HLS_UNROLL ::hls_marker::unroll();
#define HLS_UNROLL_BY(copies) ::hls_marker::unroll_by();
#define HLS_PIPELINE(interval) ::hls_marker::pipeline();
#define HLS_PARTITION(array, dimension)
#define HLS_URAM(array)
#define HLS_TRIPS(least, most) ::hls_marker::trips();
#define HLS_MEMORY_PORT(argument, axi_port)
#define HLS_CONTROL_PORT
#define HLS_DEPTH(cycles)
#define HLS_LATENCY(cycles)
