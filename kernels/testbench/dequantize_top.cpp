// The sums of two arrays to floats, for csim, csynth and cosim.
#include "kernels/modules/dequantize.h"
#include "kernels/testbench/ports.h"
#include "kernels/testbench/shapes.h"

using namespace flexllm::kernels;

extern "C" void dequantize_top(Stage stage, Queue<Word> (&parameters)[BenchShape::weight_ports][1],
                               Queue<TileSums> (&sums)[BenchShape::arrays],
                               Stream<AsymmetricScale>& scales, Stream<TileValues>& out) {
  dequantize<BenchShape>(stage, parameters, sums, scales, out);
}
