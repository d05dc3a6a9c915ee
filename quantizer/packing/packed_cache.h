// Packed models in the user's cache folder, so that a checkpoint is packed once.
#pragma once

#include <filesystem>
#include <string>

#include "quantizer/packing/pack.h"

namespace flexllm::quantizer {

// $FLEXLLM_CACHE, else $XDG_CACHE_HOME/flexllm, else ~/.cache/flexllm. Throws formats::Error if
// none of them is set.
std::filesystem::path cache_folder();

// Identity of a checkpoint without reading it: its canonical path, and the names, sizes and times
// of its files. Throws formats::Error if it is not there.
std::string fingerprint(const std::filesystem::path& checkpoint);

// What `model` becomes in the cache, and whether it is there already.
struct CachedModel {
  std::filesystem::path path;
  bool present = false;
};

// The name depends on the checkpoint's fingerprint(), on the scheme, the rotations and their seed,
// `rounding`, the streams, the context and the contract version; `rounder` itself is not asked.
CachedModel find_packed(const std::filesystem::path& checkpoint, const PackOptions& options);

// find_packed(), after packing the checkpoint if it is not there. Several processes may do this at
// once: each writes aside, and the last rename wins. Throws as pack() and open_checkpoint() do.
std::filesystem::path ensure_packed(const std::filesystem::path& checkpoint,
                                    const PackOptions& options);

}  // namespace flexllm::quantizer
