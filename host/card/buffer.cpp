#include "host/card/buffer.h"

#include <unistd.h>

#include <utility>

namespace flexllm::card {

std::uint32_t Client::add(std::shared_ptr<BufferObject> buffer) {
  const std::uint32_t handle = next_handle_++;
  buffers.emplace(handle, std::move(buffer));
  return handle;
}

std::shared_ptr<BufferObject> Client::find(std::uint32_t handle) const {
  const auto found = buffers.find(handle);
  return found == buffers.end() ? nullptr : found->second;
}

void Client::signal() {
  const std::lock_guard lock(mutex_);
  if (fd_ < 0) return;
  const std::uint64_t one = 1;
  // The counter of an eventfd never fills up at one per command.
  [[maybe_unused]] const ssize_t written = ::write(fd_, &one, sizeof one);
}

void Client::close() {
  const std::lock_guard lock(mutex_);
  fd_ = -1;
}

}  // namespace flexllm::card
