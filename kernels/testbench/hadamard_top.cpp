// The Hadamard transform alone, for csim, csynth and cosim.
#include "kernels/modules/hadamard.h"

using namespace flexllm::kernels;

extern "C" void hadamard_top(uint32_t rows, uint32_t size, uint32_t block, float scale,
                             Stream<Word>& in, Stream<Word>& out) {
  transform_blocks<kMaxHadamardBlock>(rows, size, block, scale, in, out);
}
