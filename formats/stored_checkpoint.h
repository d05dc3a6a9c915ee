// Private to this room: how both kinds of checkpoint become a Checkpoint. A loader fills
// CheckpointParts from its files; `assemble_checkpoint` checks that the tensors are those that the
// configuration implies. Called on the thread that opens the checkpoint.
#pragma once

#include <cstddef>
#include <filesystem>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "formats/checkpoint.h"
#include "formats/dtype.h"
#include "formats/mapped_file.h"
#include "formats/model_config.h"
#include "formats/tokenizer_source.h"

namespace flexllm::formats {

// A tensor as it lies in a mapped file. `interleaved_head_dim` is not zero where the rows of each
// head stand in the order of interleaved RoPE (0, d/2, 1, d/2 + 1, ...); it is then head_dim.
struct StoredTensor {
  std::vector<uint64_t> shape;
  DType type = DType::f32;
  std::span<const std::byte> data;
  uint32_t interleaved_head_dim = 0;
};

struct CheckpointParts {
  std::filesystem::path path;  // for messages
  ModelConfig config;
  GenerationDefaults generation;
  TokenizerSource tokenizer;
  // Keeps alive what the tensors point into.
  std::shared_ptr<const void> files;
  // The stored tensor behind a canonical name, or a StoredTensor without a shape when the files
  // have none. Called once for each tensor that the configuration implies.
  std::function<StoredTensor(const std::string& canonical_name)> locate;
};

std::unique_ptr<Checkpoint> assemble_checkpoint(CheckpointParts parts);

// Throws Error unless the numbers of `config` describe a model that this project can run.
void check_config(const std::filesystem::path& path, const ModelConfig& config);

std::unique_ptr<Checkpoint> open_gguf_checkpoint(const std::filesystem::path& path);
std::unique_ptr<Checkpoint> open_hugging_face_checkpoint(const std::filesystem::path& folder);

}  // namespace flexllm::formats
