// The integer softmax of one port, for csim, csynth and cosim.
#include "kernels/modules/softmax.h"
#include "kernels/testbench/shapes.h"

using namespace flexllm::kernels;

typedef EngineShape<OnePort> Engine;

extern "C" void softmax_top(ModelInfo info, Stream<PageCommand<OnePort::attention_rows>>& commands,
                            Stream<SoftmaxLevels<Engine::lanes>>& levels,
                            Stream<LaneFloats<Engine::lanes>>& scores,
                            Stream<LaneFloats<Engine::pairs>>& value_scales,
                            Stream<Numerators<Engine::lanes>>& numerators,
                            Stream<LaneSums<Engine::lanes>>& denominators) {
  soften_scores<OnePort>(info, commands, levels, scores, value_scales, numerators, denominators);
}
