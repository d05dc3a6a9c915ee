// The buffer of quantised rows that feeds two arrays, for csim, csynth and cosim.
#include "kernels/modules/activations.h"
#include "kernels/testbench/ports.h"
#include "kernels/testbench/shapes.h"

using namespace flexllm::kernels;

extern "C" void activations_top(Stage stage, Stream<Word>& rows,
                                Queue<Word> (&out)[BenchShape::arrays],
                                Queue<Word> (&q_sums)[BenchShape::arrays]) {
  feed_activations<BenchShape, kBenchInputs>(stage, rows, out, q_sums);
}
