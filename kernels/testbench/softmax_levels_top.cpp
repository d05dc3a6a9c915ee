// Softmax of rows in integers, for csim, csynth and cosim.
#include "kernels/modules/softmax_rows.h"

using namespace flexllm::kernels;

extern "C" void softmax_levels_top(uint32_t rows, uint32_t size, uint32_t levels, Stream<Word>& in,
                                   Stream<Word>& out, Stream<Accumulator>& sums) {
  softmax_levels<1024, 8>(rows, size, levels, in, out, sums);
}
