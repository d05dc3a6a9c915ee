#include "kernels/tests/test_shapes.h"
#include "kernels/tops/csim.h"
#include "kernels/tops/decode.h"

namespace flexllm::kernels {

uint32_t run_small_decode(const twin::Buffers& buffers) {
  return csim::run<DecodeComposition<SmallDecode, NarrowArray>>(buffers);
}

}  // namespace flexllm::kernels
