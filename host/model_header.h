// What the host must know of a packed model to run it: the shapes in the header of its model
// buffer, checked against the model's configuration, its file and the accelerator. A plain value.
#pragma once

#include <cstdint>
#include <tl/expected.hpp>

#include "formats/packed_model.h"
#include "host/device_error.h"
#include "host/memory_map.h"
#include "kernels/contract/layout.h"

namespace flexllm::host {

struct ModelHeader {
  uint32_t layers = 0;
  uint32_t hidden = 0;
  uint32_t heads = 0;
  uint32_t kv_heads = 0;
  uint32_t head_dim = 0;
  uint32_t ffn = 0;
  uint32_t vocab = 0;
  uint32_t context = 0;

  uint32_t attention() const { return heads * head_dim; }
  uint64_t page_bytes() const {
    return uint64_t{kernels::KvLayout{layers, kv_heads, head_dim}.page_words()} *
           kernels::kWordBytes;
  }
};

// `bad_model` when the header contradicts the configuration, when a matrix, norm or RoPE row lies
// outside its buffer, when the weights were packed for another number of streams, or when the
// accelerator's maxima are smaller than the model.
tl::expected<ModelHeader, DeviceError> read_model_header(const formats::PackedModel& model,
                                                         const MemoryMap& map);

}  // namespace flexllm::host
