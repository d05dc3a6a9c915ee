// The finished layers of a packing that may be stopped, in a folder beside its output. One process
// at a time uses a folder; one thread uses a PartialRun.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>

#include "formats/model_config.h"
#include "quantizer/rounding/rounder.h"

namespace flexllm::quantizer {

class PartialRun {
 public:
  // Opens `output`.partial/, or makes it. Layers that are there stay if they were made with the
  // same `key` (any text that names all inputs), and go otherwise. Throws formats::Error if the
  // folder cannot be made, holds other files, or is used by another process.
  PartialRun(const std::filesystem::path& output, const std::string& key);
  // Leaves the folder for the next run, unless there is nothing in it.
  ~PartialRun();
  PartialRun(const PartialRun&) = delete;
  PartialRun& operator=(const PartialRun&) = delete;

  // The rows of a layer, or nullopt if it was not finished. Throws formats::Error if its file is
  // damaged.
  std::optional<LayerRows> load(uint32_t layer) const;
  void store(uint32_t layer, const LayerRows& rows) const;

  // Removes the folder: the output is in its place.
  void finish();

 private:
  std::filesystem::path file_of(uint32_t layer) const;
  void remove_layers() const;
  bool holds_layers() const;

  std::filesystem::path folder_;
  int lock_ = -1;  // of the file `key`
};

}  // namespace flexllm::quantizer
