// Softmax of rows in floats, for csim, csynth and cosim.
#include "kernels/modules/softmax_rows.h"

using namespace flexllm::kernels;

extern "C" void softmax_rows_top(uint32_t rows, uint32_t size, Stream<Word>& in,
                                 Stream<Word>& out) {
  softmax_rows<1024, 4>(rows, size, in, out);
}
