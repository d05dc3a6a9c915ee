// The quantiser of query heads for two ports, for csim, csynth and cosim.
#include "kernels/modules/queries.h"
#include "kernels/testbench/ports.h"
#include "kernels/testbench/shapes.h"

using namespace flexllm::kernels;

extern "C" void queries_top(uint32_t rows, ModelInfo info, Stream<Word>& in,
                            Queue<Word> (&words)[BenchShape::kv_ports],
                            Queue<float> (&factors)[BenchShape::kv_ports]) {
  quantize_queries<BenchShape>(rows, info, in, words, factors);
}
