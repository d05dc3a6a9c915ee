// How the weights of a model that is not packed yet are rounded: the options of it, and the
// strategy that they name. Used by one thread at start-up.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>

#include "cli/calibration.h"
#include "cli/option_table.h"
#include "quantizer/packing/pack.h"
#include "quantizer/scheme.h"

namespace flexllm::cli {

struct RoundingOptions {
  std::string method = "rtn";
  CalibrationOptions calibration;
  std::optional<float> damping;  // absent: 0.01
  std::string order = "descending";
};

void add_rounding_options(OptionTable& table, RoundingOptions& options);

// For PackOptions::rounding. Throws Failure (kUsage).
std::string rounding_key(const RoundingOptions& options);

// For PackOptions::rounder, after the text to calibrate with was read, or written by the model.
// Throws Failure.
quantizer::PackOptions::MakeRounder make_rounder(const RoundingOptions& options,
                                                 const std::filesystem::path& model,
                                                 const quantizer::Scheme& scheme);

}  // namespace flexllm::cli
