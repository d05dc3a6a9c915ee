// The linear layers as dataflow regions.
#pragma once

#include "kernels/hls/storage.h"
#include "kernels/modules/activations.h"
#include "kernels/modules/dequantize.h"
#include "kernels/modules/hadamard.h"
#include "kernels/modules/heads.h"
#include "kernels/modules/norm.h"
#include "kernels/modules/pages.h"
#include "kernels/modules/plane_array.h"
#include "kernels/modules/quantize.h"
#include "kernels/modules/rows.h"
#include "kernels/modules/stores.h"
#include "kernels/modules/weights.h"

namespace flexllm {
namespace kernels {

constexpr uint32_t larger(uint32_t a, uint32_t b) { return a > b ? a : b; }

constexpr uint32_t whole_groups(uint32_t inputs) {
  return divide_up(inputs, kGroupInputs) * kGroupInputs;
}

// The most inputs of a matrix: of qkv and o, and of all.
template <typename K>
struct LinearLimits {
  static constexpr uint32_t attention = whole_groups(larger(K::hidden, K::heads* K::head_dim));
  static constexpr uint32_t all = larger(attention, whole_groups(K::ffn));
};

// Planes of an array's weights on their way to it: straight, or kept and replayed where a launch
// may have more rows than one block.
template <typename K, uint32_t Inputs, bool Replayed>
struct TilePath {
  static void run(uint32_t array, const Stage stage, Stream<Word>& in, Stream<Word>& out) {
    replay_tiles<K, 2 * (Inputs / kInputsPerWord)>(array, stage, in, out);
  }
};
template <typename K, uint32_t Inputs>
struct TilePath<K, Inputs, false> {
  static void run(uint32_t array, const Stage stage, Stream<Word>& in, Stream<Word>& out) {
    forward_tiles<K>(array, stage, in, out);
  }
};

// A matrix times rows of floats: quantised rows stay on chip by panels, weights pass by once a
// panel, and each tile is multiplied by one of the arrays. Tiles leave in TileOrder.
//   K       shape
//   A       array
//   Inputs  most inputs of its matrices: sizes the memories
// Streams hold what lets each task run on while others catch up: parameters and multipliers of two
// tiles, since the second is loaded while the first is multiplied; the group sums of a block of
// rows; its sums; the scales of a panel that comes in while the one before is multiplied.
template <typename K, typename A, uint32_t Inputs>
void multiply_matrix(const Arenas<K::weight_streams> weights, const Stage stage, Stream<Word>& rows,
                     Stream<TileValues>& tiles) {
  constexpr uint32_t kArrays = PortShare<K>::arrays;  // of a port; array a is on port a mod ports
  HLS_DATAFLOW("multiply_matrix");
  Fifo<Word, 32> quantized("quantized");
  Fifo<AsymmetricScale, (Panels<K>::kept - 1) * Panels<K>::rows + 4> scales("scales");
  Fifo<Word, 16> parameters[K::weight_ports][kArrays];
  Fifo<Word, 2 * divide_up(Inputs / kGroupInputs, 2)> multipliers[K::weight_ports][kArrays];
  Fifo<Word, 64> loaded[K::weight_ports][kArrays];
  Fifo<Word, 16> words[K::arrays];
  Fifo<Word, 64> activations[K::arrays];
  Fifo<Word, 8> q_sums[K::arrays];
  Fifo<GroupSums<A>, ArraySteps<A>::steps + 1> group_sums[K::arrays];
  Fifo<TileSums, kBlockRows> sums[K::arrays];
  name_streams(words, "words");
  name_streams(activations, "activations");
  name_streams(q_sums, "q_sums");
  name_streams(group_sums, "group_sums");
  name_streams(sums, "sums");

  HLS_TASK(quantize_rows<Inputs>(stage.rows, stage.inputs,
                                 Precision::decode(stage.precision).grid(), rows, scales,
                                 quantized));
  HLS_TASK(feed_activations<K, Inputs>(stage, quantized, activations, q_sums));
  HLS_UNROLL_AHEAD
  for (uint32_t port = 0; port < K::weight_ports; ++port) {
    HLS_UNROLL
    name_streams(parameters[port], "parameters");
    name_streams(multipliers[port], "multipliers");
    name_streams(loaded[port], "loaded");
    HLS_TASK_AT(port, load_tiles<K>(arenas_of_port<K>(weights, port), port, stage, parameters[port],
                                    multipliers[port], loaded[port]));
  }
  HLS_UNROLL_AHEAD
  for (uint32_t array = 0; array < K::arrays; ++array) {
    HLS_UNROLL
    HLS_TASK_AT(array, TilePath<K, Inputs, (K::rows > kBlockRows)>::run(
                           array, stage, loaded[array % K::weight_ports][array / K::weight_ports],
                           words[array]));
    HLS_TASK_AT(array, multiply_tiles<K, A>(array, stage, words[array], activations[array],
                                            group_sums[array]));
    HLS_TASK_AT(array,
                fold_groups<K, A, Inputs>(
                    array, stage, group_sums[array], q_sums[array],
                    multipliers[array % K::weight_ports][array / K::weight_ports], sums[array]));
  }
  HLS_TASK(dequantize<K>(stage, parameters, sums, scales, tiles));
  HLS_DATAFLOW_END();
}

// Any matrix of a layer, or lm_head, on the rows that take part: what comes before and behind it is
// chosen at run time, so that one array serves them all in turn. Scratch to scratch; k and v to
// their pages.
//   K       shape
//   A       array
//   Inputs  most inputs of its matrices
template <typename K, typename A, uint32_t Inputs>
void run_linear(const Word* desc, const Word* model, const Word* scratch_in, Word* scratch_out,
                const Arenas<K::weight_streams> weights, const PageArenas<K::kv_streams> pages,
                const LaunchInfo launch, const ModelInfo info, const Stage stage) {
  HLS_DATAFLOW("run_linear");
  Fifo<uint32_t, K::rows> rows_in("rows_in");
  Fifo<RowInfo, 4> rows_out("rows_out");
  Fifo<RowInfo, 4> rows_kv("rows_kv");
  Fifo<RowInfo, 4> rows_logits("rows_logits");
  Fifo<Word, 32> inputs("inputs");
  // Those of a panel: its results come late, and the rows of the next panel are read behind them.
  constexpr uint32_t kResiduals = (Panels<K>::kept - 1) * Panels<K>::rows * float_words(K::hidden);
  Fifo<Word, kResiduals + 32> residuals("residuals");
  HLS_URAM_FIFO(residuals)
  Fifo<Word, 4> gains("gains");
  Fifo<Word, 4> head_gains("head_gains");
  Fifo<Word, 4> rope("rope");
  Fifo<Word, 32> normalized("normalized");
  Fifo<Word, 32> transformed("transformed");
  Fifo<TileValues, 8> tiles("tiles");
  Fifo<TileValues, 4> head_tiles("head_tiles");
  Fifo<TileValues, 4> sum_tiles("sum_tiles");
  Fifo<TileValues, 4> gate_tiles("gate_tiles");
  Fifo<TileValues, 4> logit_tiles("logit_tiles");
  Fifo<HeadTag, 4> head_tags("head_tags");
  Fifo<Word, 16> head_words("head_words");
  Fifo<HeadTag, 4> query_tags("query_tags");
  Fifo<Word, 16> query_words("query_words");
  Fifo<HeadTag, 4> kv_tags("kv_tags");
  Fifo<Word, 16> kv_words("kv_words");
  Fifo<PageStore, 8> page_stores[K::kv_ports];
  Fifo<Store, 8> query_stores("query_stores");
  Fifo<Store, 8> sum_stores("sum_stores");
  Fifo<Store, 8> gate_stores("gate_stores");
  Fifo<Store, 8> logit_stores("logit_stores");
  Fifo<Store, 8> stores("stores");
  name_streams(page_stores, "page_stores");

  const uint32_t block = stage.kind == kDown ? info.hadamard_block : 0u;
  HLS_TASK(
      list_stage<K>(desc, model, launch, info, stage, rows_in, rows_out, gains, head_gains, rope));
  HLS_TASK(read_listed<K>(scratch_in, stage, rows_in, inputs, residuals));
  HLS_TASK(normalize<Inputs>(stage.rows, stage.inputs, stage.normalized(), info.rms_eps, gains,
                             inputs, normalized));
  HLS_TASK(transform_blocks<kMaxHadamardBlock>(stage.rows, stage.inputs, block, info.hadamard_scale,
                                               normalized, transformed));
  HLS_TASK(multiply_matrix<K, A, Inputs>(weights, stage, transformed, tiles));
  HLS_TASK(route_tiles<K>(stage, tiles, head_tiles, sum_tiles, gate_tiles, logit_tiles));
  HLS_TASK(route_rows<K>(stage, rows_out, rows_kv, rows_logits));
  HLS_TASK(assemble_heads<K>(stage, info.head_dim, head_tiles, head_tags, head_words));
  HLS_TASK(rotate_heads<K>(stage, info, head_gains, rope, head_tags, head_words, query_tags,
                           query_words, kv_tags, kv_words));
  HLS_TASK(pack_queries<K>(stage, info, query_tags, query_words, query_stores));
  HLS_TASK(quantize_kv<K>(stage, info, rows_kv, kv_tags, kv_words, page_stores));
  HLS_TASK(add_residual<K>(stage, sum_tiles, residuals, sum_stores));
  HLS_TASK(gate_with_silu<K>(stage, gate_tiles, gate_stores));
  HLS_TASK(store_logits<K>(stage, rows_logits, logit_tiles, logit_stores));
  HLS_TASK(merge_stores(stage, query_stores, sum_stores, gate_stores, logit_stores, stores));
  HLS_TASK(write_stores(scratch_out, stores));
  HLS_UNROLL_AHEAD
  for (uint32_t port = 0; port < K::kv_ports; ++port) {
    HLS_UNROLL
    HLS_TASK_AT(port, write_pages<K>(pages, port, stage, page_stores[port]));
  }
  HLS_DATAFLOW_END();
}

}  // namespace kernels
}  // namespace flexllm
