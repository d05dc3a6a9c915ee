// Hidden states from the descriptor to scratch, and from there to the results; for csim, csynth and
// cosim.
#include "kernels/testbench/ports.h"
#include "kernels/testbench/shapes.h"
#include "kernels/tops/outputs.h"

using namespace flexllm::kernels;

extern "C" void hidden_rows_top(const Word* desc, const Word* model, Word* scratch, Word* result,
                                LaunchInfo launch, ModelInfo info, uint32_t residual) {
  HLS_TEST_MEMORY(desc, 512)
  HLS_TEST_MEMORY(model, 16)
  HLS_TEST_MEMORY(scratch, 512)
  HLS_TEST_MEMORY(result, 1024)
  HLS_CONTROL_PORT
  copy_inputs<BenchShape>(desc, launch, info.hidden, scratch, residual);
  run_hidden_outputs<BenchShape>(desc, model, scratch, result, launch, info, residual);
}
