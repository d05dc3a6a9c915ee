// The quantiser by channel that finds its scales, symmetric INT8, for csim, csynth and cosim.
#include "kernels/modules/quantizers.h"

using namespace flexllm::kernels;

extern "C" void quantize_channels_top(uint32_t rows, uint32_t size, Stream<Word>& in,
                                      Stream<AsymmetricScale>& scales, Stream<Word>& out) {
  quantize_channels<Symmetric<8>, 8, 512>(rows, size, in, scales, out);
}
