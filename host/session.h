// Everything that the host holds on a card while a model is loaded: the open device, its kernels,
// the buffers, and one run of each stage. Private to host/; owned by the Engine and called by its
// thread. Destroying it closes the render node.
#pragma once

#include <xrt/xrt_kernel.h>

#include <array>
#include <chrono>
#include <memory>
#include <optional>
#include <tl/expected.hpp>
#include <vector>

#include "formats/packed_model.h"
#include "host/arena.h"
#include "host/descriptor.h"
#include "host/device.h"
#include "host/engine.h"
#include "host/memory_map.h"
#include "host/model_header.h"
#include "host/telemetry.h"

namespace flexllm::host {

// What launches of a stage may ask for, when the scratch bank has `scratch_bytes`: logits rows for
// as many rows as fit beside the work space. `out_of_memory` when there is no room for one.
tl::expected<LaunchShape, DeviceError> plan_stage(Stage stage, const MemoryMap& map,
                                                  const ModelHeader& header, uint32_t pages,
                                                  uint64_t scratch_bytes);
uint64_t scratch_words(const LaunchShape& shape, const ModelHeader& header);

// One kernel with the buffers of its launches. Two stages share weights, model and pages, and
// nothing else, so that they may run at once.
struct StageUnit {
  xrt::kernel kernel;
  DeviceBuffer desc;
  DeviceBuffer result;
  DeviceBuffer scratch;
  xrt::run run;  // destroyed first: it refers to all of them
  LaunchShape shape;

  // Set by start(), moved from `running` to `completed` by a wait that succeeds.
  std::optional<LaunchPlan> running;
  std::optional<LaunchPlan> completed;
  std::chrono::steady_clock::time_point started{};
};

class Session {
 public:
  // Opens the card, loads the bitstream, allocates all buffers and streams the model to the card.
  // `pages` fixes the number of KV pages; 0: as many as fit and options allow. What is copied is
  // counted in `telemetry`.
  static tl::expected<std::unique_ptr<Session>, DeviceError> open(
      const EngineOptions& options, const MemoryMap& map, const ModelHeader& header,
      const formats::PackedModel& model, uint32_t pages,
      std::shared_ptr<DeviceTelemetry> telemetry);

  Session(const Session&) = delete;
  Session& operator=(const Session&) = delete;

  StageUnit* stage(Stage stage) { return stages_[static_cast<size_t>(stage)].get(); }
  uint32_t pages() const { return pages_; }
  const Device& device() const { return device_; }
  CopyPath copy_path() const { return memory_->copy_path(); }

  // The arena of page p is kv(p mod streams). Can be read and written if copy_path() is `staged`.
  DeviceBuffer& kv(uint32_t stream) { return kv_.at(stream); }

 private:
  explicit Session(Device device) : device_(std::move(device)) {}

  tl::expected<void, DeviceError> load_model(const MemoryMap& map,
                                             const formats::PackedModel& model);
  tl::expected<void, DeviceError> allocate_pages(const EngineOptions& options, const MemoryMap& map,
                                                 const ModelHeader& header, uint32_t pages);
  uint32_t pages_that_fit(const EngineOptions& options, const MemoryMap& map,
                          const ModelHeader& header) const;
  tl::expected<void, DeviceError> allocate_arenas(const MemoryMap& map, uint64_t bytes);
  tl::expected<void, DeviceError> open_stage(Stage stage, const KernelMap& kernel,
                                             const MemoryMap& map, const ModelHeader& header);
  tl::expected<void, DeviceError> bind(StageUnit& unit, const KernelMap& kernel,
                                       const MemoryMap& map);

  // In the order of their needs; destroyed from the last to the first.
  Device device_;
  std::optional<CardMemory> memory_;
  DeviceBuffer model_;
  std::vector<DeviceBuffer> weights_;
  std::vector<DeviceBuffer> kv_;
  uint32_t pages_ = 0;
  std::array<std::unique_ptr<StageUnit>, 2> stages_;
};

}  // namespace flexllm::host
