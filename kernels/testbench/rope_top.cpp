// Rotary position embedding of heads, for csim, csynth and cosim.
#include "kernels/modules/rope.h"

using namespace flexllm::kernels;

extern "C" void rope_top(uint32_t rows, uint32_t heads, uint32_t head_dim, uint32_t rotated,
                         Stream<Word>& tables, Stream<HeadTag>& tags, Stream<Word>& in,
                         Stream<HeadTag>& out_tags, Stream<Word>& out) {
  apply_rope<16, 128, 2>(rows, heads, head_dim, rotated, tables, tags, in, out_tags, out);
}
