// Row results from rows of logits, for csim, csynth and cosim.
#include "kernels/modules/logits.h"
#include "kernels/testbench/shapes.h"

using namespace flexllm::kernels;

// Each row comes twice: to the search, and to the sum behind it.
extern "C" void logits_top(uint32_t rows, uint32_t vocab, Stream<RowInfo>& list,
                           Stream<Word>& first, Stream<Word>& second, Stream<Word>& records,
                           Stream<Word>& largest) {
  HLS_DATAFLOW("logits");
  Fifo<RowExtrema, 2> extrema("extrema");
  Fifo<RowExtrema, 2> summed("summed");
  Fifo<Word, 2 * kPartialWords> partials("partials");
  HLS_TASK(find_largest<BenchShape>(rows, vocab, list, first, extrema, largest));
  HLS_TASK(sum_exponentials<BenchShape, BenchShape::logits_parallel>(rows, vocab, extrema, second,
                                                                     summed, partials));
  HLS_TASK(complete_records<BenchShape>(rows, vocab, summed, partials, records));
  HLS_DATAFLOW_END();
}
