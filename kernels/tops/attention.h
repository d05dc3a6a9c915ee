// Attention as dataflow regions.
#pragma once

#include "kernels/modules/attention.h"
#include "kernels/tops/linear.h"

namespace flexllm {
namespace kernels {

// Query rows in, output rows out, over the pages of one layer.
//   K     shape
template <typename K>
void attend(const Word* desc, const PageArenas<K::kv_streams> pages, const LaunchInfo launch,
            const ModelInfo info, uint32_t layer, Stream<Word>& queries, Stream<Word>& outputs) {
  typedef QueryBlock<K::attention_rows> Block;
  HLS_DATAFLOW("attend");
  Fifo<Block, 2> blocks[kBlockReaders];
  Fifo<PageRequest, 8> requests[K::kv_ports];
  Fifo<PageRequest, 16> order("order");
  Fifo<Word, 512> page_words[K::kv_ports];
  Fifo<Word, 64> query_words("query_words");
  Fifo<PerHead<K::heads>, 2> query_factors("query_factors");
  Fifo<Word, 16> key_scales("key_scales");
  Fifo<Word, 16> value_scales("value_scales");
  Fifo<Word, 64> keys("keys");
  Fifo<Word, 64> values("values");
  Fifo<PerHead<K::heads>, 8> scores("scores");
  // Holds the numerators of a page: its values come behind its keys.
  Fifo<Numerators<K::heads>, kPageTokens * K::attention_rows> numerators("numerators");
  Fifo<PerHead<K::heads>, 2> factors("factors");
  name_streams(blocks, "blocks");
  name_streams(requests, "requests");
  name_streams(page_words, "page_words");

  HLS_TASK(plan_attention<K>(desc, launch, info, layer, blocks, requests, order));
  HLS_TASK(quantize_queries<K>(launch.rows, info, queries, query_words, query_factors));
  HLS_UNROLL_AHEAD
  for (uint32_t port = 0; port < K::kv_ports; ++port) {
    HLS_UNROLL
    HLS_TASK_AT(port, load_pages<K>(pages, port, info, requests[port], page_words[port]));
  }
  HLS_TASK(merge_pages<K>(info, order, page_words, key_scales, value_scales, keys, values));
  HLS_TASK(score_keys<K>(info, blocks[0], query_words, query_factors, key_scales, keys, scores));
  HLS_TASK(soften_scores<K>(info, blocks[1], value_scales, scores, numerators, factors));
  HLS_TASK(accumulate_values<K>(info, blocks[2], values, numerators, factors, outputs));
  HLS_DATAFLOW_END();
}

// Attention alone: query rows of scratch to output rows of scratch.
//   K     shape
template <typename K>
void run_attention(const Word* desc, const Word* scratch_in, Word* scratch_out,
                   const PageArenas<K::kv_streams> pages, const LaunchInfo launch,
                   const ModelInfo info, uint32_t layer, uint32_t from, uint32_t to) {
  HLS_DATAFLOW("run_attention");
  Fifo<Word, 64> queries("queries");
  Fifo<Word, 64> outputs("outputs");
  const uint32_t words = launch.rows * float_words(info.attention());
  HLS_TASK(send_words(scratch_in, from, words, queries));
  HLS_TASK(attend<K>(desc, pages, launch, info, layer, queries, outputs));
  HLS_TASK(write_words(scratch_out, to, words, outputs));
  HLS_DATAFLOW_END();
}

// Attention and the output matrix behind it, on an array of its own: rows go from the one to the
// other on chip, and the first weights are there when they come.
//   K     shape
//   A     array
template <typename K, typename A>
void run_attention_and_output(const Word* desc, const Word* scratch_in, Word* scratch_out,
                              const Arenas<K::weight_streams> weights,
                              const PageArenas<K::kv_streams> pages, const LaunchInfo launch,
                              const ModelInfo info, const Stage stage) {
  HLS_DATAFLOW("run_attention_and_output");
  Fifo<Word, 64> queries("queries");
  Fifo<Word, 64> outputs("outputs");
  Fifo<Word, 32> residuals("residuals");
  Fifo<TileValues, 8> tiles("tiles");
  Fifo<Store, 8> stores("stores");
  HLS_TASK(read_all<K>(scratch_in, stage, queries, residuals));
  HLS_TASK(attend<K>(desc, pages, launch, info, stage.layer, queries, outputs));
  HLS_TASK(multiply_matrix<K, A, LinearLimits<K>::attention>(weights, stage, outputs, tiles));
  HLS_TASK(add_residual<K>(stage, tiles, residuals, stores));
  HLS_TASK(write_stores(scratch_out, stores));
  HLS_DATAFLOW_END();
}

}  // namespace kernels
}  // namespace flexllm
