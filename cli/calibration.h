// Token windows that quantisation with calibration looks at: text that the model writes itself, so
// that nothing has to be fetched, or a file. Used by one thread.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "cli/option_table.h"

namespace flexllm::cli {

struct CalibrationOptions {
  std::filesystem::path text;  // empty: sampled from the model
  uint32_t windows = 8;
  uint32_t tokens = 512;                 // of a window
  uint32_t seed = 1;                     // of the sampled text
  std::string option = "--calibration";  // that names the text, for messages
};

void add_calibration_options(OptionTable& table, CalibrationOptions& options);

// `windows` times `tokens` ids. From a file: windows spread evenly over it, fewer if it is short.
// Sampled: each window is begun with a random token and continued at temperature 1 by the model
// packed in the default scheme, on the fast twin in this process; an end of text begins again with
// a random token. It is kept in the cache folder, beside the packed models. Throws Failure.
std::vector<std::vector<uint32_t>> calibration_windows(const std::filesystem::path& model,
                                                       const CalibrationOptions& options);

// What tells two calibrations of one model apart, for names of cached files: a short word. Throws
// Failure when the text cannot be read.
std::string calibration_key(const CalibrationOptions& options);

}  // namespace flexllm::cli
