// Stands before kernels/hls/task.h, as pragmas.h here does: regions and tasks become visible.
#pragma once

#include "kernels/hls/pragmas.h"

#define HLS_DATAFLOW(name) ::hls_marker::dataflow()
#define HLS_TASK(...)     \
  {                       \
    ::hls_marker::task(); \
    __VA_ARGS__;          \
  }
#define HLS_TASK_AT(index, ...) HLS_TASK(__VA_ARGS__)
#define HLS_DATAFLOW_END()
