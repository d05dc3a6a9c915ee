// The weighted sums of one port's values, for csim, csynth and cosim.
#include "kernels/modules/values.h"
#include "kernels/testbench/shapes.h"

using namespace flexllm::kernels;

typedef EngineShape<OnePort> Engine;

extern "C" void values_top(ModelInfo info, Stream<PageCommand<OnePort::attention_rows>>& commands,
                           Stream<Word>& values, Stream<Numerators<Engine::lanes>>& numerators,
                           Stream<LaneSums<Engine::drained>>& sums) {
  accumulate_values<OnePort>(info, commands, values, numerators, sums);
}
