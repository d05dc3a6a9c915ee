// Dataflow regions. C++14.
//
//   void region(...) {
//     HLS_DATAFLOW("region");
//     Fifo<Word, 16> words("words");
//     HLS_TASK(load(memory, count, words));
//     HLS_TASK(add(words, sum));
//     HLS_DATAFLOW_END();
//   }
//
// To an HLS compiler a task is a function call in a region under `#pragma HLS dataflow`. In plain
// simulation the tasks run on threads, or one after the other, as simulation.h describes. Arguments
// are taken by reference and must live until HLS_DATAFLOW_END; HLS_TASK_AT copies `index`, the
// variable of an unrolled loop over replicated tasks.
#pragma once

#include "kernels/hls/pragmas.h"

#if FLEXLLM_HLS_TYPES
#if defined(__VITIS_HLS__)
#define HLS_DATAFLOW(name) HLS_PRAGMA(HLS dataflow)
#else
#define HLS_DATAFLOW(name)
#endif
#define HLS_TASK(...) __VA_ARGS__
#define HLS_TASK_AT(index, ...) __VA_ARGS__
#define HLS_DATAFLOW_END()
#else
#include "kernels/hls/simulation.h"
#define HLS_DATAFLOW(name) ::flexllm::kernels::simulation::Region hls_region(name)
#define HLS_TASK(...) hls_region.start(#__VA_ARGS__, -1, [&]() { __VA_ARGS__; })
#define HLS_TASK_AT(index, ...) \
  hls_region.start(#__VA_ARGS__, static_cast<int>(index), [&, index]() { __VA_ARGS__; })
#define HLS_DATAFLOW_END() hls_region.finish()
#endif
