#include "kernels/tests/test_shapes.h"
#include "kernels/tops/csim.h"
#include "kernels/tops/spatial.h"

namespace flexllm::kernels {

uint32_t run_small_prefill(const twin::Buffers& buffers) {
  return csim::run<SpatialComposition<SmallPrefill, NarrowArray, WideArray>>(buffers);
}

}  // namespace flexllm::kernels
