#include "server/scheduling/generation.h"

#include <utility>

namespace flexllm::server {

const char* to_string(FinishReason reason) {
  return reason == FinishReason::stop ? "stop" : "length";
}

namespace {

size_t size_of(const Event& event) {
  const auto* delta = std::get_if<Delta>(&event);
  if (delta == nullptr) return 0;
  size_t bytes = sizeof(Event) + delta->text.size();
  for (const auto& token : delta->tokens) {
    bytes += sizeof(TokenRecord) + token.top.size() * sizeof(host::TokenLogprob);
  }
  return bytes;
}

}  // namespace

bool ResultQueue::push(Event event) {
  std::function<void()> wake;
  {
    const std::lock_guard lock(mutex_);
    if (closed_) return true;
    closed_ = !std::holds_alternative<Delta>(event);
    const size_t bytes = events_.empty() ? 0 : size_of(event);
    if (bytes > 0 && bytes_ + bytes > max_bytes_) return false;
    bytes_ += bytes;
    events_.push_back(std::move(event));
    wake = wake_;
  }
  if (wake) wake();
  return true;
}

std::vector<Event> ResultQueue::take() {
  const std::lock_guard lock(mutex_);
  bytes_ = 0;
  return std::exchange(events_, {});
}

void ResultQueue::on_ready(std::function<void()> wake) {
  {
    const std::lock_guard lock(mutex_);
    wake_ = wake;
    if (events_.empty()) return;
  }
  wake();
}

void ResultQueue::cancel() {
  cancelled_.store(true, std::memory_order_relaxed);
  const std::lock_guard lock(mutex_);
  wake_ = nullptr;
  events_.clear();
  bytes_ = 0;
}

}  // namespace flexllm::server
