// The quantiser that is given its scales, asymmetric 4 bits of any scope, for csim, csynth and
// cosim.
#include "kernels/modules/quantizers.h"

using namespace flexllm::kernels;

extern "C" void round_spans_top(ScaleScope scope, Stream<AsymmetricScale>& scales, Stream<Word>& in,
                                Stream<Word>& out) {
  round_spans<Asymmetric<4>>(scope, scales, in, out);
}
