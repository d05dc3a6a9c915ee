#include "kernels/tests/test_shapes.h"
#include "kernels/tops/csim.h"
#include "kernels/tops/prefill.h"

namespace flexllm::kernels {

uint32_t run_small_prefill(const twin::Buffers& buffers) {
  return csim::run<PrefillComposition<SmallPrefill, NarrowArray, WideArray>>(buffers);
}

}  // namespace flexllm::kernels
