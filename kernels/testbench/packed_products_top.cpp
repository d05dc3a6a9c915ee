// Packed products in cascades, for csim, csynth and cosim.
#include "kernels/modules/packed_products.h"
#include "kernels/modules/types.h"

using namespace flexllm::kernels;

// A word holds w0, w1, a0, a1 (u4) and x0, x1, y (s8) in its lanes. Of each kTwoCascade words come
// the sums w0 a0, w0 a1, w1 a0, w1 a1, x0 y and x1 y.
extern "C" void packed_products_top(uint32_t sums, Stream<Word>& in, Stream<Word>& out) {
  PackedSum four = 0;
  PackedSum two = 0;
  uint32_t term = 0;
  for (uint32_t i = 0; i < sums * kTwoCascade; ++i) {
    HLS_TRIPS(1, 1 << 18)
    HLS_PIPELINE(1)
    const Word word = in.read();
    const PackedSum four_before = term == 0 ? PackedSum(0) : four;
    const PackedSum two_before = term == 0 ? PackedSum(0) : two;
    four = four_before + multiply_packed(pack_weights(get_lane(word, 0), get_lane(word, 1)),
                                         pack_inputs(get_lane(word, 2), get_lane(word, 3)));
    two = two_before +
          multiply_packed(pack_factors(static_cast<int32_t>(get_lane(word, 4)),
                                       static_cast<int32_t>(get_lane(word, 5))),
                          static_cast<NarrowOperand>(static_cast<int32_t>(get_lane(word, 6))));
    if (++term < kTwoCascade) continue;
    term = 0;
    Word result = zero_word();
    HLS_UNROLL_AHEAD
    for (uint32_t field = 0; field < 4; ++field) {
      HLS_UNROLL
      set_lane(result, field, four_field(four, field));
    }
    set_lane(result, 4, static_cast<uint32_t>(two_low(two)));
    set_lane(result, 5, static_cast<uint32_t>(two_high(two)));
    out.write(result);
  }
}
