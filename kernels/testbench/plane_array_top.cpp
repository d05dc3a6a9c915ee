// One integer array with its fold, for csim, csynth and cosim.
#include "kernels/modules/plane_array.h"
#include "kernels/testbench/shapes.h"

using namespace flexllm::kernels;

namespace {

struct OneArray : BenchShape {
  static constexpr uint32_t arrays = 1;
};

}  // namespace

extern "C" void plane_array_top(Stage stage, Stream<Word>& weights, Stream<Word>& activations,
                                Stream<Word>& q_sums, Stream<Word>& multipliers,
                                Stream<TileSums>& out) {
  HLS_DATAFLOW("plane_array");
  Fifo<GroupSums<BenchArray>, 5> group_sums("group_sums");
  HLS_TASK(multiply_tiles<OneArray, BenchArray>(0, stage, weights, activations, group_sums));
  HLS_TASK(fold_groups<OneArray, BenchArray, kBenchInputs>(0, stage, group_sums, q_sums,
                                                           multipliers, out));
  HLS_DATAFLOW_END();
}
