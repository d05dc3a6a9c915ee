// `flexllm quantize --budget`: which matrices to raise from the precision of the scheme to a higher
// one, by their measured sensitivity and by what the cycle model says that they cost. Used by one
// thread.
#pragma once

#include <cstdint>
#include <filesystem>
#include <nlohmann/json_fwd.hpp>
#include <string>

#include "cli/option_table.h"
#include "cli/rounding.h"
#include "formats/checkpoint.h"
#include "quantizer/packing/pack.h"
#include "quantizer/scheme.h"

namespace flexllm::cli {

struct BudgetOptions {
  std::string budget;  // "ppl=+3%", "speed=600"; empty: none
  std::string high;    // precision of what is raised; empty: 8 bits, in groups as the scheme has
  std::string accelerator = "u280-combined";
  std::filesystem::path sensitivity;  // kept there, and read if it is there
  uint32_t sensitivity_tokens = 1024;
  std::filesystem::path text;  // empty: text that the model writes itself
  uint32_t windows = 8;        // of it
};

void add_budget_options(OptionTable& table, BudgetOptions& options);

// Whether the options make sense, before anything is read. Throws Failure (kUsage).
void check_budget_options(const OptionTable& table, const BudgetOptions& options,
                          const quantizer::Scheme& low);

struct BudgetChoice {
  quantizer::Scheme scheme;
  std::string text;  // what was found, in lines
};

// Raises matrices of `pack.scheme` until the budget holds. `pack` is what packing would be asked
// for: its scheme, rotations, identity and threads are used. Fills `report` with the figures that
// the choice rests on. Throws Failure; one that says what is closest if the budget cannot be met.
BudgetChoice choose_scheme(const BudgetOptions& options, const RoundingOptions& rounding,
                           const std::filesystem::path& model,
                           const formats::Checkpoint& checkpoint,
                           const quantizer::PackOptions& pack, nlohmann::json& report);

}  // namespace flexllm::cli
