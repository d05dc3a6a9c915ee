// A port that loads the tiles of two arrays from two arenas, and replays them for each block of
// rows; for csim, csynth and cosim.
#include "kernels/modules/weights.h"
#include "kernels/testbench/ports.h"
#include "kernels/testbench/shapes.h"

using namespace flexllm::kernels;

static void load_and_replay(const Arenas<OnePort::weight_streams> arenas, const Stage stage,
                            Queue<Word> (&parameters)[OnePort::arrays],
                            Queue<Word> (&multipliers)[OnePort::arrays],
                            Queue<Word> (&planes)[OnePort::arrays]) {
  HLS_DATAFLOW("weights");
  Fifo<Word, 64> loaded[OnePort::arrays];
  name_streams(loaded, "loaded");
  HLS_TASK(load_tiles<OnePort>(arenas, 0, stage, parameters, multipliers, loaded));
  HLS_UNROLL_AHEAD
  for (uint32_t array = 0; array < OnePort::arrays; ++array) {
    HLS_UNROLL
    HLS_TASK_AT(array, replay_tiles<OnePort, 2 * (kBenchInputs / kInputsPerWord)>(
                           array, stage, loaded[array], planes[array]));
  }
  HLS_DATAFLOW_END();
}

extern "C" void weights_top(const Word* arena0, const Word* arena1, Stage stage,
                            Queue<Word> (&parameters)[OnePort::arrays],
                            Queue<Word> (&multipliers)[OnePort::arrays],
                            Queue<Word> (&planes)[OnePort::arrays]) {
  HLS_TEST_MEMORY(arena0, 1024)
  HLS_TEST_MEMORY(arena1, 1024)
  HLS_CONTROL_PORT
  Arenas<OnePort::weight_streams> arenas;
  arenas.at[0] = arena0;
  arenas.at[1] = arena1;
  load_and_replay(arenas, stage, parameters, multipliers, planes);
}
