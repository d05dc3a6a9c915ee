// From a checkpoint to a packed model (docs/packed-model.md).
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>

#include "formats/checkpoint.h"
#include "quantizer/scheme.h"

namespace flexllm::quantizer {

struct PackOptions {
  Scheme scheme;
  uint32_t streams = 16;     // weight arenas of the accelerator
  uint32_t threads = 0;      // 0: as many as the process may use; the file does not depend on it
  uint32_t max_context = 0;  // RoPE rows; 0: the model's context length
  std::string source;        // what `PackedModelInfo::source` shall say
  std::string source_sha256;
  std::function<void(double)> progress;  // share of the work done, 0..1, on the calling thread
};

// Packs `checkpoint` into the file at `path`; on any error nothing is left there. Memory: the
// packed arenas and the floats of one matrix. Throws formats::Error (unreadable, or a weight that
// is not finite) or std::invalid_argument (a shape that the kernels do not take).
void pack(const formats::Checkpoint& checkpoint, const std::filesystem::path& path,
          const PackOptions& options);

}  // namespace flexllm::quantizer
