// RMS norm alone, for csim, csynth and cosim.
#include "kernels/modules/norm.h"

using namespace flexllm::kernels;

extern "C" void norm_top(uint32_t rows, uint32_t size, float eps, Stream<Word>& gains,
                         Stream<Word>& in, Stream<Word>& out) {
  normalize<2048>(rows, size, true, eps, gains, in, out);
}
