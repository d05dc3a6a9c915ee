// Measured sensitivities in a JSON file, so that other budgets need not measure them again. Used by
// one thread.
#pragma once

#include <filesystem>
#include <map>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <vector>

#include "quantizer/sensitivity/sensitivity.h"

namespace flexllm::cli {

class SensitivityFile {
 public:
  // `of`: all that the figures depend on, by name. An empty path: nothing is kept.
  SensitivityFile(std::filesystem::path path, std::map<std::string, std::string> of);

  // Nothing if there is no file. Throws Failure (kUsage) for a file that cannot be read, is damaged
  // or is of something else, and says of what; also if there is no folder to save() one in.
  std::optional<quantizer::Sensitivities> load(const std::vector<quantizer::MatrixId>& ids) const;

  // Written aside and renamed. Throws Failure (kFailed).
  void save(const quantizer::Sensitivities& found) const;

 private:
  const std::filesystem::path path_;
  const std::map<std::string, std::string> of_;
};

// {"high": ..., "matrices": [{"layer": ..., "kind": ..., "divergence": ...}, ...]}
nlohmann::json to_json(const quantizer::Sensitivities& found);

}  // namespace flexllm::cli
