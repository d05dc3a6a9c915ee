// The twin called in this process, on buffers of its own: what a card is compared with. Takes the
// same launches as an Engine. One thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <tl/expected.hpp>
#include <vector>

#include "formats/packed_model.h"
#include "host/descriptor.h"
#include "host/device_error.h"
#include "host/memory_map.h"
#include "host/model_header.h"

namespace flexllm::host {

class TwinReference {
 public:
  // The model must outlive it: its arenas are used in place.
  TwinReference(const formats::PackedModel& model, const MemoryMap& map, const ModelHeader& header,
                uint32_t pages);

  // Spans of the outputs are valid until the next run().
  tl::expected<std::vector<RowOutput>, DeviceError> run(const Launch& launch);
  // Of a row of the last launch that asked for a row result or a target log-probability.
  std::span<const float> logits(uint32_t row) const;
  std::span<const std::byte> page(PageId page) const;

 private:
  struct alignas(64) Word {
    uint32_t fields[16];
  };
  using Buffer = std::vector<Word>;

  const formats::PackedModel& model_;
  const MemoryMap& map_;
  const ModelHeader header_;
  LaunchShape shape_;
  LaunchPlan plan_;
  uint32_t next_id_ = 1;
  Buffer desc_, result_, scratch_;
  std::vector<Buffer> kv_;
};

}  // namespace flexllm::host
