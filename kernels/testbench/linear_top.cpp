// A whole matrix times rows of floats on two arrays, for csim, csynth and cosim.
#include "kernels/testbench/ports.h"
#include "kernels/testbench/shapes.h"
#include "kernels/tops/linear.h"

using namespace flexllm::kernels;

extern "C" void linear_top(const Word* arena0, const Word* arena1, Stage stage, Stream<Word>& rows,
                           Stream<TileValues>& tiles) {
  HLS_TEST_MEMORY(arena0, 1024)
  HLS_TEST_MEMORY(arena1, 1024)
  HLS_CONTROL_PORT
  Arenas<BenchShape::weight_streams> arenas;
  arenas.at[0] = arena0;
  arenas.at[1] = arena1;
  multiply_matrix<BenchShape, BenchArray, kBenchInputs>(arenas, stage, rows, tiles);
}
