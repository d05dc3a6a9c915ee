// The residual addition behind o and down, for csim, csynth and cosim.
#include "kernels/modules/stores.h"
#include "kernels/testbench/shapes.h"

using namespace flexllm::kernels;

extern "C" void residual_top(Stage stage, Stream<TileValues>& tiles, Stream<Word>& residuals,
                             Stream<Store>& out) {
  add_residual<BenchShape>(stage, tiles, residuals, out);
}
