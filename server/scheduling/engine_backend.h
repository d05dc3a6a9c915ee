// The backend of production: a host::Engine. Owned by the scheduler, called by its thread.
#pragma once

#include <memory>

#include "host/engine.h"
#include "server/scheduling/backend.h"

namespace flexllm::server {

class EngineBackend final : public Backend {
 public:
  explicit EngineBackend(std::unique_ptr<host::Engine> engine) : engine_(std::move(engine)) {}

  const host::EngineLimits& limits() const override { return engine_->limits(); }
  host::PageAllocator& pages() override { return engine_->pages(); }
  tl::expected<void, host::DeviceError> start(const host::Launch& launch) override {
    return engine_->start(launch);
  }
  bool finished(host::Stage stage) const override { return engine_->finished(stage); }
  tl::expected<host::LaunchResult, host::DeviceError> wait(host::Stage stage) override {
    return engine_->wait(stage);
  }
  tl::expected<std::vector<float>, host::DeviceError> logits(host::Stage stage,
                                                             uint32_t row) override {
    return engine_->logits(stage, row);
  }
  tl::expected<std::vector<std::byte>, host::DeviceError> read_page(host::PageId page) override {
    return engine_->read_page(page);
  }
  tl::expected<void, host::DeviceError> write_page(host::PageId page,
                                                   std::span<const std::byte> bytes) override {
    return engine_->write_page(page, bytes);
  }
  tl::expected<void, host::DeviceError> recover() override { return engine_->recover(); }
  std::shared_ptr<const host::DeviceTelemetry> telemetry() const override {
    return engine_->telemetry();
  }

 private:
  std::unique_ptr<host::Engine> engine_;
};

}  // namespace flexllm::server
