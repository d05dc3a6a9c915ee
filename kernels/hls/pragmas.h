// The compilers' directives as macros, so that a kernel reads the same to all of them. C++14.
//
// Vitis wants `unroll` inside the body of a loop, Bambu and clang in front of it: a loop that must
// be unrolled has both macros. To a plain C++ compiler they vanish, but for those of time.
//
// Time is written into the source with three of them, from which a C simulation counts cycles
// (docs/cycle-model.md):
//   HLS_PIPELINE(interval)  first statement of a pipelined loop: an iteration starts every
//                           `interval` cycles. Loops inside it are unrolled, or are not there.
//   HLS_DEPTH(cycles)       what a task writes from here on leaves it so long after its iteration
//                           started: latency that costs no throughput
//   HLS_LATENCY(cycles)     so many cycles pass here: a result that the next loop must wait for
// A pipelined loop inside another loop is entered anew each time; where that would cost a fill each
// time, the loops are written as one.
#pragma once

// Sources that use AMD's types: both compilers, and simulations with AMD's open headers.
#if defined(__SYNTHESIS__) || defined(__VITIS_HLS__) || defined(__BAMBU__) || \
    defined(FLEXLLM_AP_TYPES)
#define FLEXLLM_HLS_TYPES 1
#else
#define FLEXLLM_HLS_TYPES 0
#endif

#if FLEXLLM_HLS_TYPES
#define HLS_TIME(call)
#else
#include "kernels/hls/clock.h"
#define HLS_TIME(call) ::flexllm::kernels::simulation::call;
#endif

#define HLS_PRAGMA(text) _Pragma(#text)

#if defined(__VITIS_HLS__)
#define HLS_UNROLL_AHEAD
#define HLS_UNROLL HLS_PRAGMA(HLS unroll)
#define HLS_UNROLL_BY(copies) HLS_PRAGMA(HLS unroll factor = copies)
#define HLS_PIPELINE(interval) HLS_PRAGMA(HLS pipeline II = interval)
#define HLS_PARTITION(array, dimension) \
  HLS_PRAGMA(HLS array_partition variable = array complete dim = dimension)
#define HLS_URAM(array) HLS_PRAGMA(HLS bind_storage variable = array type = ram_2p impl = uram)
#define HLS_TRIPS(least, most) HLS_PRAGMA(HLS loop_tripcount min = least max = most)
#define HLS_MEMORY_PORT(argument, axi_port) \
  HLS_PRAGMA(HLS interface m_axi port = argument bundle = axi_port offset = slave)
#define HLS_CONTROL_PORT HLS_PRAGMA(HLS interface s_axilite port = return )
#elif defined(__BAMBU__)
#define HLS_UNROLL_AHEAD _Pragma("unroll")
#define HLS_UNROLL
#define HLS_UNROLL_BY(copies)
#define HLS_PIPELINE(interval)
#define HLS_PARTITION(array, dimension)
#define HLS_URAM(array)
#define HLS_TRIPS(least, most)
#define HLS_MEMORY_PORT(argument, axi_port)
#define HLS_CONTROL_PORT
#else
#define HLS_UNROLL_AHEAD
#define HLS_UNROLL
#define HLS_UNROLL_BY(copies)
#define HLS_PIPELINE(interval) HLS_TIME(advance(interval))
#define HLS_PARTITION(array, dimension)
#define HLS_URAM(array)
#define HLS_TRIPS(least, most)
#define HLS_MEMORY_PORT(argument, axi_port)
#define HLS_CONTROL_PORT
#endif

#define HLS_DEPTH(cycles) HLS_TIME(set_depth(cycles))
#define HLS_LATENCY(cycles) HLS_TIME(advance(cycles))
