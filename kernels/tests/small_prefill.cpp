#include "kernels/tests/test_shapes.h"

namespace flexllm::kernels {

uint32_t run_small_prefill(const twin::Buffers& buffers) {
  return csim::run<SmallPrefill, NarrowArray, WideArray>(buffers);
}

}  // namespace flexllm::kernels
