// The quantiser of activations alone, for csim, csynth and cosim.
#include "kernels/modules/quantize.h"

using namespace flexllm::kernels;

extern "C" void quantize_top(uint32_t rows, uint32_t size, ActivationGrid grid, Stream<Word>& in,
                             Stream<AsymmetricScale>& scales, Stream<Word>& out) {
  quantize_rows<2048>(rows, size, grid, in, scales, out);
}
