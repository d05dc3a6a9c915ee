#include "quantizer/sensitivity/choice.h"

#include <algorithm>

namespace flexllm::quantizer {
namespace {

// a.gain / a.cost > b.gain / b.cost, without the divisions.
bool worth_more(const Candidate& a, const Candidate& b) {
  const bool gains_a = a.gain > 0;
  const bool gains_b = b.gain > 0;
  if (gains_a != gains_b) return gains_a;
  if (!gains_a) return a.gain > b.gain;
  const bool free_a = a.cost <= 0;
  const bool free_b = b.cost <= 0;
  if (free_a != free_b) return free_a;
  return free_a ? a.gain > b.gain : a.gain * b.cost > b.gain * a.cost;
}

}  // namespace

void order_by_worth(std::vector<Candidate>& candidates) {
  std::sort(candidates.begin(), candidates.end(), [](const Candidate& a, const Candidate& b) {
    if (worth_more(a, b)) return true;
    return !worth_more(b, a) && a.id < b.id;
  });
}

std::vector<double> predicted(std::span<const Candidate> ordered, double high) {
  std::vector<double> all(ordered.size() + 1, high);
  for (size_t n = ordered.size(); n > 0; --n) {
    all[n - 1] = all[n] + std::max(0.0, ordered[n - 1].gain);
  }
  return all;
}

Search fewest_raised(std::span<const double> prediction, double budget, size_t most_probes,
                     const std::function<double(size_t raised)>& measure) {
  const size_t all = prediction.size() - 1;
  Search search;
  // Fewer than `open` do not do; `found` does, or nothing is known to.
  size_t open = 0;
  double scale = 1;
  const auto probe = [&](size_t raised) {
    const Probe made{raised, measure(raised)};
    search.probes.push_back(made);
    const bool meets = made.divergence <= budget;
    const bool closer = search.probes.size() == 1 || made.divergence < search.found.divergence;
    if (meets || (!search.met && closer)) search.found = made;
    if (meets) search.met = true;
    if (!meets) open = raised + 1;
    if (prediction[raised] > 0 && made.divergence > 0) scale = made.divergence / prediction[raised];
  };
  while (search.probes.size() < most_probes) {
    const size_t end = search.met ? search.found.raised : all + 1;  // those before it are open
    if (open >= end) return search;
    size_t next = open;
    while (next + 1 < end && prediction[next] * scale > budget) ++next;
    probe(next);
  }
  if (!search.met && open <= all) probe(all);
  return search;
}

std::vector<MatrixId> raise_within(
    std::span<const Candidate> ordered, double limit,
    const std::function<double(std::span<const MatrixId> raised)>& time_of) {
  std::vector<MatrixId> raised;
  for (const Candidate& candidate : ordered) {
    if (candidate.gain <= 0) break;
    raised.push_back(candidate.id);
    if (time_of(raised) > limit) raised.pop_back();
  }
  return raised;
}

}  // namespace flexllm::quantizer
