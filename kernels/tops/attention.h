// Attention as dataflow regions.
#pragma once

#include "kernels/hls/storage.h"
#include "kernels/modules/attention.h"
#include "kernels/tops/linear.h"

namespace flexllm {
namespace kernels {

// Query rows in, output rows out, over the pages of one layer.
//   K     shape
// Depths: score memories hold two blocks' kept scores; page streams a page, so that keys and values
// of a port do not wait for each other; queries, maxima and levels a block, so that a port never
// holds up another.
template <typename K>
void attend(const Word* desc, const PageArenas<K::kv_streams> pages, const LaunchInfo launch,
            const ModelInfo info, uint32_t layer, Stream<Word>& queries, Stream<Word>& outputs) {
  typedef EngineShape<K> Engine;
  typedef PageCommand<K::attention_rows> Command;
  constexpr uint32_t kPageWords = kPageTokens * K::kv_heads * Engine::head_words;
  constexpr uint32_t kScaleWords = 2 * kPageTokens * Engine::scale_words;
  constexpr uint32_t kQueries = K::attention_rows * K::heads;
  HLS_DATAFLOW("attend");
  Fifo<PageRequest, 8> requests[K::kv_ports];
  Fifo<Command, 8> scored[K::kv_ports];
  Fifo<Command, 8> softened[K::kv_ports];
  Fifo<Command, 8> summed[K::kv_ports];
  Fifo<uint32_t, 4> combined("combined");
  Fifo<uint32_t, 4> gathered("gathered");
  Fifo<Word, kQueries * Engine::head_words> query_words[K::kv_ports];
  Fifo<float, kQueries> query_factors[K::kv_ports];
  Fifo<Word, kScaleWords> scales[K::kv_ports];
  Fifo<Word, kPageWords> keys[K::kv_ports];
  Fifo<Word, kPageWords> values[K::kv_ports];
  Fifo<LaneFloats<Engine::lanes>, ScoreMemory<K>::score_depth> scores[K::kv_ports];
  Fifo<LaneFloats<Engine::pairs>, ScoreMemory<K>::scale_depth> value_scales[K::kv_ports];
  Fifo<Maxima<Engine::lanes>, Engine::row_steps> maxima[K::kv_ports];
  Fifo<SoftmaxLevels<Engine::lanes>, 2 * Engine::row_steps> levels[K::kv_ports];
  Fifo<LaneFloats<Engine::lanes>, 2 * Engine::row_steps> largest_scales("largest_scales");
  Fifo<Numerators<Engine::lanes>, 64> numerators[K::kv_ports];
  Fifo<LaneSums<Engine::lanes>, 2> denominators[K::kv_ports];
  Fifo<LaneSums<Engine::drained>, 2> sums[K::kv_ports];
  HLS_URAM_FIFO(scores)
  HLS_URAM_FIFO(value_scales)
  name_streams(requests, "requests");
  name_streams(scored, "scored");
  name_streams(softened, "softened");
  name_streams(summed, "summed");
  name_streams(query_words, "query_words");
  name_streams(query_factors, "query_factors");
  name_streams(scales, "scales");
  name_streams(keys, "keys");
  name_streams(values, "values");
  name_streams(scores, "scores");
  name_streams(value_scales, "value_scales");
  name_streams(maxima, "maxima");
  name_streams(levels, "levels");
  name_streams(numerators, "numerators");
  name_streams(denominators, "denominators");
  name_streams(sums, "sums");

  HLS_TASK(plan_attention<K>(desc, launch, info, layer, requests, scored, softened, summed,
                             combined, gathered));
  HLS_TASK(quantize_queries<K>(launch.rows, info, queries, query_words, query_factors));
  HLS_UNROLL_AHEAD
  for (uint32_t port = 0; port < K::kv_ports; ++port) {
    HLS_UNROLL
    HLS_TASK_AT(port, load_pages<K>(pages, port, info, requests[port], scales[port], keys[port],
                                    values[port]));
    HLS_TASK_AT(port, score_keys<K>(info, scored[port], query_words[port], query_factors[port],
                                    scales[port], keys[port], scores[port], value_scales[port],
                                    maxima[port]));
  }
  HLS_TASK(combine_maxima<K>(info, combined, maxima, levels, largest_scales));
  HLS_UNROLL_AHEAD
  for (uint32_t port = 0; port < K::kv_ports; ++port) {
    HLS_UNROLL
    HLS_TASK_AT(port, soften_scores<K>(info, softened[port], levels[port], scores[port],
                                       value_scales[port], numerators[port], denominators[port]));
    HLS_TASK_AT(
        port, accumulate_values<K>(info, summed[port], values[port], numerators[port], sums[port]));
  }
  HLS_TASK(gather_outputs<K>(info, gathered, largest_scales, denominators, sums, outputs));
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
