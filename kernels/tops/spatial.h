// Spatial attention half: q, k, v and the output matrix have arrays of their own, and attention
// hands its rows straight to the output matrix. The feed-forward half and lm_head take turns on a
// third bank of arrays.
#pragma once

#include "kernels/tops/kernel.h"

namespace flexllm {
namespace kernels {

//   K                 shape
//   AttentionArray    of qkv, and of o
//   FeedForwardArray  of gate_up, down and lm_head
template <typename K, typename AttentionArray, typename FeedForwardArray>
struct SpatialComposition {
  typedef K Shape;

  static void run(const Word* desc, const Word* model, Word* scratch,
                  const Arenas<K::weight_streams> weights, const PageArenas<K::kv_streams> pages,
                  const LaunchInfo launch, const ModelInfo info, const WorkSpace space) {
    constexpr uint32_t kStages = 2;  // of the feed-forward half
    const uint32_t layers = launch.layer_end - launch.layer_begin;
    const uint32_t steps = kStages * layers + (launch.logits_rows > 0 ? 1 : 0);
    for (uint32_t step = 0; step < steps; ++step) {
      HLS_TRIPS(1, kStages * 32 + 1)
      const uint32_t layer = launch.layer_begin + step / kStages;
      Stage stage = logits_stage(launch, info, space);
      if (step < kStages * layers) {
        const Word record = model[info.layer_table + layer];
        if (step % kStages == 0) {
          run_linear<K, AttentionArray, LinearLimits<K>::attention>(
              desc, model, scratch, scratch, weights, pages, launch, info,
              layer_stage(kQkv, record, layer, launch, info, space));
          Stage output = layer_stage(kOutput, record, layer, launch, info, space);
          output.input = space.queries;
          run_attention_and_output<K, AttentionArray>(desc, scratch, scratch, weights, pages,
                                                      launch, info, output);
        }
        const StageKind kind = step % kStages == 0 ? kGateUp : kDown;
        stage = layer_stage(kind, record, layer, launch, info, space);
      }
      run_linear<K, FeedForwardArray, LinearLimits<K>::all>(desc, model, scratch, scratch, weights,
                                                            pages, launch, info, stage);
    }
  }
};

}  // namespace kernels
}  // namespace flexllm
