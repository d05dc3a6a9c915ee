#include "kernels/tests/test_shapes.h"

namespace flexllm::kernels {

uint32_t run_small_decode(const twin::Buffers& buffers) {
  return csim::run<SmallDecode, NarrowArray, NarrowArray>(buffers);
}

}  // namespace flexllm::kernels
