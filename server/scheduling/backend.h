// What the scheduler needs of a card: launches of one loaded model, its KV pages and its way back
// after a fault. Owned by the scheduler and called by its thread only. `EngineBackend` is the one
// that production uses; tests schedule on a deterministic one that needs no card.
#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <tl/expected.hpp>
#include <vector>

#include "host/device_error.h"
#include "host/engine.h"

namespace flexllm::server {

// Members mean what those of host::Engine of the same name mean.
class Backend {
 public:
  virtual ~Backend() = default;

  virtual const host::EngineLimits& limits() const = 0;
  virtual host::PageAllocator& pages() = 0;
  virtual tl::expected<void, host::DeviceError> start(const host::Launch& launch) = 0;
  virtual bool finished(host::Stage stage) const = 0;
  virtual tl::expected<host::LaunchResult, host::DeviceError> wait(host::Stage stage) = 0;
  virtual tl::expected<std::vector<float>, host::DeviceError> logits(host::Stage stage,
                                                                     uint32_t row) = 0;
  virtual tl::expected<std::vector<std::byte>, host::DeviceError> read_page(host::PageId page) = 0;
  virtual tl::expected<void, host::DeviceError> write_page(host::PageId page,
                                                           std::span<const std::byte> bytes) = 0;
  virtual tl::expected<void, host::DeviceError> recover() = 0;
  virtual std::shared_ptr<const host::DeviceTelemetry> telemetry() const = 0;
};

}  // namespace flexllm::server
