// Directives about memories, beside those of pragmas.h. C++14.
//
//   HLS_URAM_FIFO(stream)            a stream, or an array of streams, that is kept in URAM
//   HLS_DISTANCE(array, iterations)  an element that an iteration writes is read no sooner than so
//                                    many iterations later: what a compiler cannot see in the
//                                    addresses of a loop that changes it in place
#pragma once

#include "kernels/hls/pragmas.h"

#if defined(__VITIS_HLS__)
#define HLS_URAM_FIFO(stream) HLS_PRAGMA(HLS bind_storage variable = stream type = fifo impl = uram)
#define HLS_DISTANCE(array, iterations)                                              \
  HLS_PRAGMA(HLS dependence variable = array type = inter direction = RAW distance = \
                 iterations dependent = true)
#else
#define HLS_URAM_FIFO(stream)
#define HLS_DISTANCE(array, iterations)
#endif
