// Which matrices to raise to the high precision so that a budget holds. Pure functions.
#pragma once

#include <cstddef>
#include <functional>
#include <span>
#include <vector>

#include "quantizer/scheme.h"

namespace flexllm::quantizer {

struct Candidate {
  MatrixId id;
  double gain = 0;  // divergence that raising it takes away, nats per token
  double cost = 0;  // time that it adds
};

// The best first: gain by cost. What gains nothing comes last, what costs nothing first; equal ones
// in the order of their ids.
void order_by_worth(std::vector<Candidate>& candidates);

// The divergence with the first n raised, for n = 0 .. candidates: the gains add up. `high`: with
// all of them raised.
std::vector<double> predicted(std::span<const Candidate> ordered, double high);

struct Probe {
  size_t raised = 0;
  double divergence = 0;  // measured
};

struct Search {
  std::vector<Probe> probes;  // in the order in which they were made
  Probe found;                // the one with the fewest raised that met the budget
  bool met = false;           // false: not even all of them; `found` is then the closest
};

// The fewest of an ordered list that bring what `measure` measures to `budget`. The next number is
// the one that the prediction names once it is scaled to the last measurement, within what is
// still open; after `most_probes` measurements the best so far is taken, with all raised among them
// if no other met the budget.
Search fewest_raised(std::span<const double> prediction, double budget, size_t most_probes,
                     const std::function<double(size_t raised)>& measure);

// Raises one after the other as long as the time stays within `limit`; what would break it is left
// out. `time_of` is the time with a list of matrices raised.
std::vector<MatrixId> raise_within(
    std::span<const Candidate> ordered, double limit,
    const std::function<double(std::span<const MatrixId> raised)>& time_of);

}  // namespace flexllm::quantizer
