#include <algorithm>

#include "kernels/contract/launch.h"
#include "kernels/model/latencies.h"
#include "kernels/model/stages.h"

namespace flexllm::kernels::model {

const ModuleTime& RegionTime::bottleneck() const {
  return *std::max_element(
      modules.begin(), modules.end(),
      [](const ModuleTime& a, const ModuleTime& b) { return a.busy < b.busy; });
}

Rates rates_of(const Device& device, const Kernel& kernel) {
  const auto words = [&](const char* family) {
    return std::min(1.0, port_bytes_per_cycle(device, kernel, kernel.port(family)) / kWordBytes);
  };
  return {words("w"), words("kv"), words("scratch"), words("io")};
}

RegionTime input_region(const Rates& rates, const ModelShape& model, uint32_t rows) {
  RegionTime out;
  out.region = "inputs";
  const double words = rows * float_words(model.hidden);
  const double cycles = words / std::min(rates.io, rates.scratch);
  out.cycles = cycles + 2 * kMemoryLatency;
  out.modules.push_back({"copy inputs", 0, out.cycles, cycles});
  out.traffic.io = words;
  out.traffic.scratch = words;
  return out;
}

RegionTime hidden_region(const Rates& rates, const ModelShape& model, uint32_t rows) {
  RegionTime out;
  out.region = "hidden outputs";
  const double words = rows * float_words(model.hidden);
  const double cycles = rows == 0 ? 0 : words / std::min(rates.io, rates.scratch);
  out.cycles = cycles + kMemoryLatency + kRegionTurn;
  out.modules.push_back({"final norm", 0, out.cycles, cycles});
  out.traffic.io = words;
  out.traffic.scratch = words;
  return out;
}

RegionTime result_region(const Kernel& kernel, const Rates& rates, const ModelShape& model,
                         uint32_t logits_rows) {
  RegionTime out;
  out.region = "row results";
  const double words = float_words(model.vocab);
  // Logits in random order: of word w, 64 / w are expected to be among the largest 64 so far, and
  // each takes a cycle. Early on that is slower than the port, and later the port cannot catch up.
  double search = 0;
  for (double w = 1; w <= words; ++w) {
    search += std::max(1.0 / rates.scratch, 1.0 + std::min(1.0 * kFloatsPerWord, kTopLogits / w));
  }
  const double sum = words * kFloatsPerWord / logits_lanes(kernel);
  // Row i + 1 is searched while row i is summed.
  const double row = std::max(search, sum);
  // One after the other: the row's entry of the descriptor, its first logits, the last response.
  out.cycles = search + (logits_rows - 1) * row + sum + 2 * kMemoryLatency + latency::memory_write +
               kRowResultLatency + kRegionTurn;
  out.modules.push_back({"find largest", kMemoryLatency, out.cycles - sum, logits_rows * search});
  out.modules.push_back({"sum exponentials", search, out.cycles, logits_rows * sum});
  out.traffic.scratch = logits_rows * words;
  out.traffic.io = 9.0 * logits_rows;
  return out;
}

}  // namespace flexllm::kernels::model
