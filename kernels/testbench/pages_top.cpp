// One port's writer of pages, then its reader, for csim, csynth and cosim.
#include "kernels/modules/pages.h"
#include "kernels/testbench/ports.h"
#include "kernels/testbench/shapes.h"

using namespace flexllm::kernels;

extern "C" void pages_top(Word* arena0, Word* arena1, Stage stage, ModelInfo info,
                          Stream<PageStore>& stores, Stream<PageRequest>& requests,
                          Stream<Word>& scales, Stream<Word>& keys, Stream<Word>& values) {
  HLS_TEST_MEMORY(arena0, 4096)
  HLS_TEST_MEMORY(arena1, 4096)
  HLS_CONTROL_PORT
  PageArenas<OnePort::kv_streams> arenas;
  arenas.at[0] = arena0;
  arenas.at[1] = arena1;
  write_pages<OnePort>(arenas, 0, stage, stores);
  load_pages<OnePort>(arenas, 0, info, requests, scales, keys, values);
}
