// The float mode of the numerics contract, for the lifetime of an object on one thread.
#pragma once

#include <immintrin.h>

namespace flexllm::kernels::twin {

// Flushes denormal results and operands to zero (MXCSR FTZ and DAZ) until destroyed. Every thread
// that runs a kernel, its simulation or a twin holds one.
class FlushDenormals {
 public:
  FlushDenormals() : saved_(_mm_getcsr()) { _mm_setcsr(saved_ | kFlushToZero | kDenormalsAreZero); }
  ~FlushDenormals() { _mm_setcsr(saved_); }
  FlushDenormals(const FlushDenormals&) = delete;
  FlushDenormals& operator=(const FlushDenormals&) = delete;

 private:
  static constexpr unsigned kFlushToZero = 1u << 15;
  static constexpr unsigned kDenormalsAreZero = 1u << 6;
  unsigned saved_;
};

}  // namespace flexllm::kernels::twin
