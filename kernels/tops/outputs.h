// The outputs of a launch as dataflow regions.
#pragma once

#include "kernels/hls/storage.h"
#include "kernels/modules/hidden_rows.h"
#include "kernels/modules/logits.h"

namespace flexllm {
namespace kernels {

constexpr uint32_t kFinalNormInterval = 4;  // cycles a word: a few rows a launch

// Residual and final-norm rows that were asked for.
//   K     shape
template <typename K>
void run_hidden_outputs(const Word* desc, const Word* model, const Word* scratch, Word* result,
                        const LaunchInfo launch, const ModelInfo info, uint32_t residual) {
  HLS_DATAFLOW("run_hidden_outputs");
  Fifo<RowInfo, 4> rows_read("rows_read");
  Fifo<RowInfo, 4> rows_write("rows_write");
  Fifo<uint32_t, 1> rows_normalized("rows_normalized");
  Fifo<Word, 4> gains("gains");
  Fifo<Word, 32> plain("plain");
  Fifo<Word, 32> to_norm("to_norm");
  Fifo<Word, 32> normalized("normalized");
  HLS_TASK(
      list_hidden<K>(desc, model, launch, info, rows_normalized, gains, rows_read, rows_write));
  HLS_TASK(read_hidden<K>(scratch, launch.rows, info.hidden, residual, rows_read, plain, to_norm));
  HLS_TASK(normalize_listed<padded(K::hidden), kFinalNormInterval>(
      info.hidden, info.rms_eps, rows_normalized, gains, to_norm, normalized));
  HLS_TASK(write_hidden<K>(result, launch.rows, info.hidden, rows_write, plain, normalized));
  HLS_DATAFLOW_END();
}

// Row results from the logits in scratch.
//   K     shape
// Cycles: rows * max(16 / logits_parallel, cycles of the port for a word) * ceil(vocab / 16), and
// the search of the first row.
template <typename K>
void run_row_results(const Word* desc, const Word* scratch, Word* result, const LaunchInfo launch,
                     const ModelInfo info) {
  HLS_DATAFLOW("run_row_results");
  Fifo<RowInfo, 4> rows_read("rows_read");
  Fifo<RowInfo, 4> rows_find("rows_find");
  Fifo<RowInfo, 4> rows_write("rows_write");
  Fifo<Word, 32> first("first");
  Fifo<Word, float_words(K::vocab)> second("second");  // a row, until its maximum is known
  HLS_URAM_FIFO(second)
  Fifo<RowExtrema, 2> extrema("extrema");
  Fifo<RowExtrema, 2> summed("summed");
  Fifo<Word, 2 * kPartialWords> partials("partials");
  Fifo<Word, 2 * kLargestWords> largest("largest");
  Fifo<Word, 2> records("records");
  HLS_TASK(list_rows<K>(desc, launch, row_flag::needs_logits, rows_read, rows_find, rows_write));
  HLS_TASK(read_logits<K>(scratch, launch.logits_rows, info.vocab, launch.logits, rows_read, first,
                          second));
  HLS_TASK(find_largest<K>(launch.logits_rows, info.vocab, rows_find, first, extrema, largest));
  HLS_TASK(sum_exponentials<K, K::logits_parallel>(launch.logits_rows, info.vocab, extrema, second,
                                                   summed, partials));
  HLS_TASK(complete_records<K>(launch.logits_rows, info.vocab, summed, partials, records));
  HLS_TASK(write_row_results<K>(result, launch.logits_rows, rows_write, records, largest));
  HLS_DATAFLOW_END();
}

}  // namespace kernels
}  // namespace flexllm
