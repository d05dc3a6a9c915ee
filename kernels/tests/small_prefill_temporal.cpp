#include "kernels/tests/test_shapes.h"
#include "kernels/tops/csim.h"
#include "kernels/tops/temporal.h"

namespace flexllm::kernels {

uint32_t run_small_prefill_temporal(const twin::Buffers& buffers) {
  return csim::run<TemporalComposition<SmallPanels, WideArray>>(buffers);
}

}  // namespace flexllm::kernels
