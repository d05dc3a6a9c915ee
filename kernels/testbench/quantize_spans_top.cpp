// The quantiser that finds its scales, symmetric INT8 of any scope, for csim, csynth and cosim.
#include "kernels/modules/quantizers.h"

using namespace flexllm::kernels;

extern "C" void quantize_spans_top(ScaleScope scope, Stream<Word>& in,
                                   Stream<AsymmetricScale>& scales, Stream<Word>& out) {
  quantize_spans<Symmetric<8>, 2048>(scope, in, scales, out);
}
