// The dequantiser by channel of asymmetric 4-bit numbers, for csim, csynth and cosim.
#include "kernels/modules/quantizers.h"

using namespace flexllm::kernels;

extern "C" void dequantize_channels_top(uint32_t rows, uint32_t size,
                                        Stream<AsymmetricScale>& scales, Stream<Word>& in,
                                        Stream<Word>& out) {
  dequantize_channels<Asymmetric<4>, 512>(rows, size, scales, in, out);
}
