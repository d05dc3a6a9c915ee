// Searches parallelism for a model and a device: which designs are not beaten in both prompt and
// decode time. Pure functions.
#pragma once

#include <vector>

#include "kernels/model/plan.h"

namespace flexllm::kernels::model {

// A design with what it takes, both kernels on one device.
struct Candidate {
  Accelerator accelerator;
  double prompt_seconds;
  double decode_seconds;  // of all generated tokens
  Resources use;
};

// Varies tp, bp, wp, heads, kv and outputs of the kernels of `base`; ports, banks, clock and maxima
// stay. Only designs that fit within `share` of each slot's resources count. In ascending prompt
// time.
std::vector<Candidate> pareto_front(const Accelerator& base, const ModelShape& model,
                                    const Request& request, double share);

}  // namespace flexllm::kernels::model
