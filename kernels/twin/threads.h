// A small pool of threads that the twins spread their loops over. Threads hold FlushDenormals.
#pragma once

#include <cstddef>
#include <functional>

namespace flexllm::kernels::twin {

// The processors that this process may use, at least 1: fewer than there are under taskset and in
// containers.
size_t usable_processors();

// Calls body(i) for i in 0..count-1, on this thread and the pool's, and returns when all are done.
// If a body throws, the others still run and the first exception is thrown here. May be called from
// several threads at once; not from within a body. FLEXLLM_TWIN_THREADS bounds the number of
// threads (default: the processors this process may use).
void parallel_for(size_t count, const std::function<void(size_t)>& body);

}  // namespace flexllm::kernels::twin
