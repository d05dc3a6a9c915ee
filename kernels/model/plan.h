// What an accelerator does with a model, by the cycle model: prefill of a prompt, a decode step,
// the memory that they need. All figures are modelled (docs/cycle-model.md). Pure functions; throw
// Refused with the field and the reason.
#pragma once

#include <string>
#include <vector>

#include "kernels/model/design.h"
#include "kernels/model/stages.h"

namespace flexllm::kernels::model {

struct Request {
  uint32_t prompt = 1024;    // tokens of each sequence
  uint32_t generate = 1024;  // further tokens of each
  uint32_t batch = 1;        // sequences that decode together
};

// Regions of the same name added up over a launch or over many.
struct RegionTotal {
  std::string region;
  double calls = 0;
  double cycles = 0;
  std::vector<ModuleTime> modules;  // begin and end are means of the calls, busy cycles totals
  Traffic traffic;
};

struct StagePlan {
  double clock_mhz = 0;
  double tokens = 0;  // prompt tokens, or batch
  double cycles = 0;  // of the prompt, or of a mean step
  double seconds = 0;
  double tokens_per_s = 0;
  std::vector<RegionTotal> regions;
  std::vector<double> bank_bytes;  // read and written, by bank of the device
  std::string bottleneck;          // "region: module"
  // The least time that the busiest bank, or the products of the arrays at full use, allow.
  double roofline_seconds = 0;
  double roofline_share() const { return seconds > 0 ? roofline_seconds / seconds : 0; }
};

struct MemoryUse {
  uint64_t weight_bytes_per_arena;
  uint64_t kv_bytes_per_token;
  uint64_t kv_tokens;  // that fit
};

// Weights in their arenas and the KV tokens of the request. Refused: they do not fit.
MemoryUse memory_use(const Accelerator& accelerator, const ModelShape& model,
                     const Request& request);

// A prompt of `tokens` tokens, alone, in launches of the most rows. The row result of the last.
StagePlan plan_prefill(const Accelerator& accelerator, const ModelShape& model, uint32_t tokens);

// The mean step of `batch` sequences between two positions; row results of all rows.
StagePlan plan_decode(const Accelerator& accelerator, const ModelShape& model, uint32_t batch,
                      uint32_t first_position, uint32_t steps);

// One launch with these rows, of which `logits_rows` ask for a row result.
double launch_seconds(const Accelerator& accelerator, const ModelShape& model, Stage stage,
                      const std::vector<SequenceRows>& sequences, uint32_t logits_rows);

// Whether the model's dimensions and the request are within the accelerator's maxima.
void check_maxima(const Accelerator& accelerator, const ModelShape& model, const Request& request);

}  // namespace flexllm::kernels::model
