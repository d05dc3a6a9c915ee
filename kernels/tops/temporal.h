// Temporal reuse: one bank of arrays (one linear region) serves all matrices of all layers and
// lm_head in turn; one attention region between q, k, v and o. The least logic for a speed.
#pragma once

#include "kernels/tops/kernel.h"

namespace flexllm {
namespace kernels {

//   K     shape
//   A     array
template <typename K, typename A>
struct TemporalComposition {
  typedef K Shape;

  static void run(const Word* desc, const Word* model, Word* scratch,
                  const Arenas<K::weight_streams> weights, const PageArenas<K::kv_streams> pages,
                  const LaunchInfo launch, const ModelInfo info, const WorkSpace space) {
    constexpr uint32_t kStages = 4;
    const uint32_t layers = launch.layer_end - launch.layer_begin;
    const uint32_t steps = kStages * layers + (launch.logits_rows > 0 ? 1 : 0);
    for (uint32_t step = 0; step < steps; ++step) {
      HLS_TRIPS(1, kStages * 32 + 1)
      const uint32_t layer = launch.layer_begin + step / kStages;
      Stage stage = logits_stage(launch, info, space);
      if (step < kStages * layers) {
        const StageKind kind = static_cast<StageKind>(step % kStages);
        stage = layer_stage(kind, model[info.layer_table + layer], layer, launch, info, space);
      }
      if (stage.kind == kOutput) {
        run_attention<K>(desc, scratch, scratch, pages, launch, info, layer, space.queries,
                         space.attention);
      }
      run_linear<K, A, LinearLimits<K>::all>(desc, model, scratch, scratch, weights, pages, launch,
                                             info, stage);
    }
  }
};

}  // namespace kernels
}  // namespace flexllm
