// C simulation of the kernels on the buffers of a card: the synthesizable source itself, run by
// hls/simulation.h, with the interface of the fast twin. The caller's thread and all tasks flush
// denormals. May be called from several threads at once on disjoint results. Throws
// simulation::Error if the dataflow is stuck or wrong.
#pragma once

#include <span>

#include "kernels/tops/kernel.h"
#include "kernels/twin/float_mode.h"
#include "kernels/twin/twin.h"

namespace flexllm::kernels::csim {

// The kernels of the accelerator that the library was made for: calls of their top functions.
// Return the launch_status.
uint32_t run_prefill(const twin::Buffers& buffers);
uint32_t run_decode(const twin::Buffers& buffers);

inline Word* words_of(const twin::Span& span) { return reinterpret_cast<Word*>(span.data); }

inline bool has_arenas(const twin::Buffers& buffers, size_t weights, size_t kv) {
  return buffers.weights.size() == weights && buffers.kv.size() == kv;
}

// Refuses a launch that has another number of arenas than the kernel has arguments.
inline uint32_t refuse(const twin::Buffers& buffers) {
  const uint32_t id = get_lane(*words_of(buffers.desc), launch_field::id);
  complete(words_of(buffers.result), id, launch_status::beyond_maxima, 0);
  return launch_status::beyond_maxima;
}

inline uint32_t status_of(const twin::Buffers& buffers) {
  return get_lane(*words_of(buffers.result), completion_field::status);
}

// One launch of the kernel with a composition (temporal.h, spatial.h).
template <typename Composition>
uint32_t run(const twin::Buffers& buffers) {
  typedef typename Composition::Shape K;
  if (!has_arenas(buffers, K::weight_streams, K::kv_streams)) return refuse(buffers);
  const twin::FlushDenormals float_mode;
  Arenas<K::weight_streams> weights;
  for (uint32_t i = 0; i < K::weight_streams; ++i) weights.at[i] = words_of(buffers.weights[i]);
  PageArenas<K::kv_streams> pages;
  for (uint32_t i = 0; i < K::kv_streams; ++i) pages.at[i] = words_of(buffers.kv[i]);
  return run_launch<Composition>(words_of(buffers.desc), words_of(buffers.model),
                                 words_of(buffers.result), words_of(buffers.scratch), weights,
                                 pages);
}

}  // namespace flexllm::kernels::csim
