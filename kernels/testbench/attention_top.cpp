// Attention over the pages of two ports, for csim, csynth and cosim.
#include "kernels/testbench/ports.h"
#include "kernels/testbench/shapes.h"
#include "kernels/tops/attention.h"

using namespace flexllm::kernels;

extern "C" void attention_top(const Word* desc, Word* pages0, Word* pages1, LaunchInfo launch,
                              ModelInfo info, uint32_t layer, Stream<Word>& queries,
                              Stream<Word>& outputs) {
  HLS_TEST_MEMORY(desc, 64)
  HLS_TEST_MEMORY(pages0, 32768)
  HLS_TEST_MEMORY(pages1, 32768)
  HLS_CONTROL_PORT
  PageArenas<BenchShape::kv_streams> pages;
  pages.at[0] = pages0;
  pages.at[1] = pages1;
  attend<BenchShape>(desc, pages, launch, info, layer, queries, outputs);
}
