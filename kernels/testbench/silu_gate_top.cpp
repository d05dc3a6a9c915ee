// silu(gate) * up behind gate_up, for csim, csynth and cosim.
#include "kernels/modules/stores.h"
#include "kernels/testbench/shapes.h"

using namespace flexllm::kernels;

extern "C" void silu_gate_top(Stage stage, Stream<TileValues>& tiles, Stream<Store>& out) {
  gate_with_silu<BenchShape, 4>(stage, tiles, out);
}
