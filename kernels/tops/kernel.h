// A whole launch: what both kernels do around the stages of their layers. Which regions run these,
// on which arrays, is the kernel's composition: temporal.h, spatial.h.
#pragma once

#include "kernels/tops/attention.h"
#include "kernels/tops/launch.h"
#include "kernels/tops/linear.h"
#include "kernels/tops/outputs.h"

namespace flexllm {
namespace kernels {

// Where a launch's rows lie in its work space: words of scratch. The residual stream alternates
// between two places, so that no region reads what it writes.
struct WorkSpace {
  uint32_t residual[2];
  uint32_t queries;
  uint32_t attention;
  uint32_t ffn;
};

inline WorkSpace work_space(const LaunchInfo& launch, const ModelInfo& info) {
  const uint32_t hidden = launch.rows * float_words(info.hidden);
  const uint32_t attention = launch.rows * float_words(info.attention());
  WorkSpace space;
  space.residual[0] = launch.work;
  space.residual[1] = space.residual[0] + hidden;
  space.queries = space.residual[1] + hidden;
  space.attention = space.queries + attention;
  space.ffn = space.attention + attention;
  return space;
}

// Stage `kind` of a layer. Reads the residual stream at residual[0], or adds to it what goes to
// residual[1] (o), or the other way round (down).
inline Stage layer_stage(StageKind kind, const Word& record, uint32_t layer,
                         const LaunchInfo& launch, const ModelInfo& info, const WorkSpace& space) {
  Stage stage = {};
  stage.kind = kind;
  stage.rows = launch.rows;
  stage.layer = layer;
  switch (kind) {
    case kQkv:
      stage.weights = get_lane(record, layer_field::qkv);
      stage.precision = get_lane(record, layer_field::qkv_precision);
      stage.gain = get_lane(record, layer_field::attention_norm);
      stage.q_norm = get_lane(record, layer_field::q_norm);
      stage.k_norm = get_lane(record, layer_field::k_norm);
      stage.inputs = info.hidden;
      stage.outputs = info.qkv_rows();
      stage.tiles = row_tiles(stage.outputs);
      stage.input = space.residual[0];
      stage.result = space.queries;
      break;
    case kOutput:
      stage.weights = get_lane(record, layer_field::o);
      stage.precision = get_lane(record, layer_field::o_precision);
      stage.inputs = info.attention();
      stage.outputs = info.hidden;
      stage.tiles = row_tiles(stage.outputs);
      stage.input = space.attention;
      stage.residual = space.residual[0];
      stage.result = space.residual[1];
      break;
    case kGateUp:
      stage.weights = get_lane(record, layer_field::gate_up);
      stage.precision = get_lane(record, layer_field::gate_up_precision);
      stage.gain = get_lane(record, layer_field::ffn_norm);
      stage.inputs = info.hidden;
      stage.outputs = info.ffn;
      stage.tiles = gate_up_tiles(info.ffn);
      stage.input = space.residual[1];
      stage.result = space.ffn;
      break;
    default:
      stage.weights = get_lane(record, layer_field::down);
      stage.precision = get_lane(record, layer_field::down_precision);
      stage.inputs = info.ffn;
      stage.outputs = info.hidden;
      stage.tiles = row_tiles(stage.outputs);
      stage.input = space.ffn;
      stage.residual = space.residual[1];
      stage.result = space.residual[0];
      break;
  }
  return stage;
}

inline Stage logits_stage(const LaunchInfo& launch, const ModelInfo& info, const WorkSpace& space) {
  Stage stage = {};
  stage.kind = kLmHead;
  stage.rows = launch.logits_rows;
  stage.inputs = info.hidden;
  stage.outputs = info.vocab;
  stage.tiles = row_tiles(info.vocab);
  stage.weights = info.lm_head;
  stage.precision = info.lm_head_precision;
  stage.input = space.residual[0];
  stage.result = launch.logits;
  stage.gain = info.final_norm;
  return stage;
}

// Runs the launch in `desc`; returns its launch_status, which is also in the completion record.
//   Composition  Shape; and run(), which takes the rows at residual[0] through the layers, back to
//                residual[0], and their logits to scratch if any row wants them
template <typename Composition>
uint32_t run_launch(const Word* desc, const Word* model, Word* result, Word* scratch,
                    const Arenas<Composition::Shape::weight_streams> weights,
                    const PageArenas<Composition::Shape::kv_streams> pages) {
  typedef typename Composition::Shape K;
  LaunchInfo launch;
  ModelInfo info;
  const uint32_t status = read_launch<K>(desc, model, launch, info);
  if (status != launch_status::ok) {
    complete(result, launch.id, status, 0);
    return status;
  }
  if (launch.rows > 0) {
    const WorkSpace space = work_space(launch, info);
    copy_inputs<K>(desc, launch, info.hidden, scratch, space.residual[0]);
    Composition::run(desc, model, scratch, weights, pages, launch, info, space);
    run_hidden_outputs<K>(desc, model, scratch, result, launch, info, space.residual[0]);
    if (launch.logits_rows > 0) run_row_results<K>(desc, scratch, result, launch, info);
  }
  complete(result, launch.id, launch_status::ok, launch.rows);
  return launch_status::ok;
}

}  // namespace kernels
}  // namespace flexllm
