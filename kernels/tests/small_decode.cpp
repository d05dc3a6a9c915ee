#include "kernels/tests/test_shapes.h"
#include "kernels/tops/csim.h"
#include "kernels/tops/temporal.h"

namespace flexllm::kernels {

uint32_t run_small_decode(const twin::Buffers& buffers) {
  return csim::run<TemporalComposition<SmallDecode, NarrowArray>>(buffers);
}

}  // namespace flexllm::kernels
