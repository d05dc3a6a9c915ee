// What each matrix of a model costs at the low precision: the divergence from the unquantised model
// when it alone has it and all others have the high one. Pure functions of their arguments; one
// thread calls, results do not depend on the number of workers.
#pragma once

#include <functional>
#include <vector>

#include "quantizer/sensitivity/divergence.h"
#include "quantizer/sensitivity/rounded_model.h"

namespace flexllm::quantizer {

struct Sensitivity {
  MatrixId id;
  double divergence = 0;  // nats per token
};

struct Sensitivities {
  double high = 0;                    // the divergence with every matrix at the high precision
  std::vector<Sensitivity> matrices;  // of RoundedModel::raisable(), in order
};

// Takes the text through the layers once, as many times beside itself as there are matrices before:
// memory for (matrices + 2) * tokens * hidden floats, twice at the end. `progress` (may be empty)
// gets the share of the work done.
Sensitivities measure_sensitivities(const RoundedModel& rounded, const Reference& reference,
                                    const std::function<void(double)>& progress = {});

// The model with these matrices raised.
Distance measure(const RoundedModel& rounded, const Raised& raised, const Reference& reference);

}  // namespace flexllm::quantizer
