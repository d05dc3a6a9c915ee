// The scores of one port's keys, for csim, csynth and cosim.
#include "kernels/modules/scores.h"
#include "kernels/testbench/shapes.h"

using namespace flexllm::kernels;

typedef EngineShape<OnePort> Engine;

extern "C" void scores_top(ModelInfo info, Stream<PageCommand<OnePort::attention_rows>>& commands,
                           Stream<Word>& queries, Stream<float>& factors, Stream<Word>& scales,
                           Stream<Word>& keys, Stream<LaneFloats<Engine::lanes>>& scores,
                           Stream<LaneFloats<Engine::pairs>>& value_scales,
                           Stream<Maxima<Engine::lanes>>& maxima) {
  score_keys<OnePort>(info, commands, queries, factors, scales, keys, scores, value_scales, maxima);
}
