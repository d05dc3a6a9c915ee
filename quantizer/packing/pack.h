// From a checkpoint to a packed model (docs/packed-model.md).
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <string>

#include "formats/checkpoint.h"
#include "quantizer/algebra/workers.h"
#include "quantizer/rotation/rotations.h"
#include "quantizer/rounding/rounder.h"
#include "quantizer/scheme.h"

namespace flexllm::quantizer {

struct PackOptions {
  // Makes the strategy for a checkpoint that stands in the basis that is packed. Both references
  // outlive what it makes.
  using MakeRounder =
      std::function<std::unique_ptr<Rounder>(const formats::Checkpoint& checkpoint, Workers&)>;

  Scheme scheme;
  Rotations rotations;         // R1 and R2 where the scheme has them; those missing are random
  uint64_t rotation_seed = 0;  // of the random ones
  MakeRounder rounder;         // none: rounding to nearest
  std::string rounding;        // all that `rounder` depends on, for find_packed(); empty for none
  uint32_t streams = 16;       // weight arenas of the accelerator
  uint32_t threads = 0;        // 0: as many as the process may use; the file does not depend on it
  uint32_t max_context = 0;    // RoPE rows; 0: the model's context length
  std::string source;          // what `PackedModelInfo::source` shall say
  std::string source_sha256;
  // Keeps finished layers in `PATH.partial/` until the end, so that a run that was stopped goes on
  // when it is started again with the same checkpoint and options.
  bool resumable = false;
  std::string identity;  // of the checkpoint's files (fingerprint()), for such a run
  std::function<void(double)> progress;  // share of the work done, 0..1, on the calling thread
};

// Packs `checkpoint` into the file at `path`; on any error nothing is left there. Memory: the
// packed arenas, the floats of one layer, and what the strategy keeps. Throws formats::Error
// (unreadable, a weight that is missing or not finite, no room on the disk, or a folder
// `PATH.partial` that is in use or not this program's) or std::invalid_argument (a shape that the
// kernels do not take, rotations that do not fit the model or that the scheme does not have).
void pack(const formats::Checkpoint& checkpoint, const std::filesystem::path& path,
          const PackOptions& options);

}  // namespace flexllm::quantizer
