// The dequantiser of symmetric INT8 numbers of any scope, for csim, csynth and cosim.
#include "kernels/modules/quantizers.h"

using namespace flexllm::kernels;

extern "C" void dequantize_spans_top(ScaleScope scope, Stream<AsymmetricScale>& scales,
                                     Stream<Word>& in, Stream<Word>& out) {
  dequantize_spans<Symmetric<8>>(scope, scales, in, out);
}
