// Kernels of the test bitstreams.
#include <chrono>
#include <stdexcept>
#include <thread>

#include "host/card/kernel_abi.h"

namespace {

using flexllm::card::Buffer;
using flexllm::card::Call;

// Wraps around, since a test may leave part of its buffers unset.
int vadd(Buffer<const unsigned> a, Buffer<const unsigned> b, Buffer<unsigned> out, unsigned n) {
  if (n > a.count() || n > b.count() || n > out.count()) return -E2BIG;
  for (unsigned i = 0; i < n; ++i) out[i] = a[i] + b[i];
  return 0;
}

void saxpy(float alpha, Buffer<const float> x, Buffer<float> y, unsigned long n) {
  for (unsigned long i = 0; i < n; ++i) y[i] = alpha * x[i] + y[i];
}

// Runs for `ms` milliseconds unless it is cancelled, then writes `ms`.
void spin(const Call& call, unsigned ms, Buffer<int> out) {
  const auto end = std::chrono::steady_clock::now() + std::chrono::milliseconds(ms);
  while (std::chrono::steady_clock::now() < end) {
    if (call.cancelled()) return;
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  out[0] = static_cast<int>(ms);
}

// Reads its arguments by index: how many there are, and how far each bank reaches.
int extents(const Call& call) {
  const auto out = call.buffer<unsigned long>(call.arguments() - 1);
  for (std::size_t i = 0; i < call.arguments(); ++i) out[i] = call.buffer<char>(i).bytes;
  return 0;
}

void broken(Buffer<int>) { throw std::runtime_error("this kernel always throws"); }

}  // namespace

FLEXLLM_CARD_KERNEL(vadd, vadd)
FLEXLLM_CARD_KERNEL(saxpy, saxpy)
FLEXLLM_CARD_KERNEL(spin, spin)
FLEXLLM_CARD_KERNEL(extents, extents)
FLEXLLM_CARD_KERNEL(broken, broken)
