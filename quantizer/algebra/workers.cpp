#include "quantizer/algebra/workers.h"

#include <algorithm>
#include <utility>

#include "kernels/twin/threads.h"

namespace flexllm::quantizer {
namespace {

thread_local bool inside_body = false;

}  // namespace

Workers::Workers(size_t threads) {
  if (threads == 0) threads = kernels::twin::usable_processors();
  for (size_t i = 1; i < threads; ++i) helpers_.emplace_back([this] { help(); });
}

Workers::~Workers() {
  {
    const std::lock_guard lock(mutex_);
    ending_ = true;
  }
  wake_.notify_all();
  for (std::thread& helper : helpers_) helper.join();
}

void Workers::run(size_t count, const std::function<void(size_t)>& body) {
  if (count == 0) return;
  if (inside_body || helpers_.empty() || count == 1) {
    const bool outer = std::exchange(inside_body, true);
    try {
      for (size_t i = 0; i < count; ++i) body(i);
    } catch (...) {
      inside_body = outer;
      throw;
    }
    inside_body = outer;
    return;
  }
  {
    const std::lock_guard lock(mutex_);
    body_ = &body;
    next_ = 0;
    count_ = count;
    error_ = nullptr;
  }
  wake_.notify_all();
  take_indices();
  std::unique_lock lock(mutex_);
  idle_.wait(lock, [this] { return running_ == 0; });
  body_ = nullptr;
  if (error_) std::rethrow_exception(std::exchange(error_, nullptr));
}

void Workers::help() {
  while (true) {
    {
      std::unique_lock lock(mutex_);
      wake_.wait(lock, [this] { return ending_ || (body_ != nullptr && next_ < count_); });
      if (ending_) return;
    }
    take_indices();
  }
}

// Bodies are tiles and rows of some milliseconds, so a lock for each costs nothing.
void Workers::take_indices() {
  std::unique_lock lock(mutex_);
  while (body_ != nullptr && next_ < count_) {
    const size_t index = next_++;
    const auto& body = *body_;
    ++running_;
    lock.unlock();
    inside_body = true;
    std::exception_ptr error;
    try {
      body(index);
    } catch (...) {
      error = std::current_exception();
    }
    inside_body = false;
    lock.lock();
    --running_;
    if (error) {
      if (!error_) error_ = error;
      next_ = count_;
    }
  }
  if (running_ == 0) idle_.notify_all();
}

}  // namespace flexllm::quantizer
