// The stores of logits behind lm_head, for csim, csynth and cosim.
#include "kernels/modules/stores.h"
#include "kernels/testbench/shapes.h"

using namespace flexllm::kernels;

extern "C" void store_logits_top(Stage stage, Stream<RowInfo>& rows, Stream<TileValues>& tiles,
                                 Stream<Store>& out) {
  store_logits<BenchShape>(stage, rows, tiles, out);
}
