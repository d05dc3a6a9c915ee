// Turns a Launch into the words of a descriptor buffer, and the words of a result buffer into row
// outputs (docs/launch.md). Pure functions of their arguments; any thread.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <tl/expected.hpp>
#include <vector>

#include "host/device_error.h"
#include "host/engine.h"

namespace flexllm::host {

// What a launch may ask of the loaded model and of the buffers of its stage. Words are 64 bytes.
struct LaunchShape {
  uint32_t layers = 0;
  uint32_t hidden = 0;
  uint32_t vocab = 0;
  uint32_t context = 0;
  uint32_t pages = 0;
  uint32_t kv_streams = 0;
  uint32_t rows = 0;              // most rows
  uint32_t logits_slots = 0;      // most rows with logits
  uint32_t page_table_words = 0;  // room for the page tables of all sequences together
  uint32_t logits = 0;            // scratch word of logits slot 0
  uint32_t work = 0;              // scratch word of the work space

  uint32_t descriptor_words() const;  // room that the largest launch needs
  uint32_t result_words() const;
};

// Where a launch put things.
struct LaunchPlan {
  struct Row {
    bool has_logits() const { return outputs.target_logprob || outputs.row_result; }

    RowOutputs outputs;
    uint32_t residual = 0;  // result words
    uint32_t final_norm = 0;
    uint32_t row_result = 0;
    uint32_t logits_slot = 0;
  };

  uint32_t id = 0;
  uint32_t descriptor_words = 0;
  uint32_t result_words = 0;
  std::vector<Row> rows;
};

// Writes the embedding of a token to `out`, `hidden` floats.
using EmbeddingRow = std::function<void(uint32_t token, std::span<float> out)>;

// Fills `words`, which holds shape.descriptor_words() * 16 uint32. Of the page tables only those of
// sequences that have rows are written, and only as far as their last row looks. Throws
// std::invalid_argument when the launch is beyond `shape` or contradicts itself.
LaunchPlan write_descriptor(const Launch& launch, const LaunchShape& shape, uint32_t id,
                            const EmbeddingRow& embedding, std::span<uint32_t> words);

// `launch_failed` when the completion record is not that of the launch or says that it was refused.
// Spans of the outputs point into `words`, plan.result_words * 16 uint32.
tl::expected<std::vector<RowOutput>, DeviceError> read_results(const LaunchPlan& plan,
                                                               const LaunchShape& shape,
                                                               std::span<const uint32_t> words);

}  // namespace flexllm::host
