// The finished layers of a packing that may be stopped, in a PartialFolder beside its output. One
// thread uses a PartialRun.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>

#include "formats/model_config.h"
#include "quantizer/packing/partial_folder.h"
#include "quantizer/rounding/rounder.h"

namespace flexllm::quantizer {

class PartialRun {
 public:
  // As of a PartialFolder.
  PartialRun(const std::filesystem::path& output, const std::string& key);

  // The rows of a layer, or nullopt if it was not finished. Throws formats::Error if its file is
  // damaged.
  std::optional<LayerRows> load(uint32_t layer) const;
  void store(uint32_t layer, const LayerRows& rows) const;

  // Removes the folder: the output is in its place.
  void finish() { folder_.finish(); }

 private:
  std::filesystem::path file_of(uint32_t layer) const;

  PartialFolder folder_;
};

}  // namespace flexllm::quantizer
