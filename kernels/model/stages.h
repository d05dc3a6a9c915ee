// Cycles of the regions of a launch (kernels/tops/), module by module: the same arithmetic as the
// loops of kernels/modules/, at the granularity of rows, tiles and pages. Formulas and assumptions:
// docs/cycle-model.md. Pure functions.
#pragma once

#include <string>
#include <vector>

#include "kernels/model/design.h"

namespace flexllm::kernels::model {

// When a module works within its region, and how many cycles of that it is not waiting.
struct ModuleTime {
  std::string module;
  double begin;
  double end;
  double busy;
};

// 64-byte words that a region moves.
struct Traffic {
  double weights = 0;
  double kv = 0;
  double scratch = 0;
  double io = 0;  // descriptor, model, result

  Traffic& operator+=(const Traffic& other) {
    weights += other.weights;
    kv += other.kv;
    scratch += other.scratch;
    io += other.io;
    return *this;
  }
  Traffic operator*(double n) const { return {weights * n, kv * n, scratch * n, io * n}; }
};

struct RegionTime {
  std::string region;
  double cycles = 0;
  double filled = 0;  // linear regions: when the last row is on chip and the arrays begin
  std::vector<ModuleTime> modules;
  Traffic traffic;

  // The module with the most busy cycles.
  const ModuleTime& bottleneck() const;
};

// What a kernel has to work with: rates in words of 64 bytes a cycle.
struct Rates {
  double weights;
  double kv;
  double scratch;
  double io;
};
Rates rates_of(const Device& device, const Kernel& kernel);

// One matrix of that precision on `rows` rows.
RegionTime linear_region(const Kernel& kernel, const Rates& rates, const ModelShape& model,
                         Matrix matrix, const Precision& precision, uint32_t rows);

// Rows of one sequence in a launch, in ascending position.
struct SequenceRows {
  uint32_t begin;  // position of the first
  uint32_t rows;
};

// Attention of one layer over the pages of the sequences.
RegionTime attention_region(const Kernel& kernel, const Rates& rates, const ModelShape& model,
                            const std::vector<SequenceRows>& sequences);

// Attention and the o matrix in one region: rows go from the one to the other on chip.
RegionTime joined_region(const RegionTime& attention, const RegionTime& output);

// Input rows to scratch; residual and final-norm rows that were asked for; row results of
// `logits_rows` rows.
RegionTime input_region(const Rates& rates, const ModelShape& model, uint32_t rows);
RegionTime hidden_region(const Rates& rates, const ModelShape& model, uint32_t rows);
RegionTime result_region(const Kernel& kernel, const Rates& rates, const ModelShape& model,
                         uint32_t logits_rows);

}  // namespace flexllm::kernels::model
