#include "kernels/twin/threads.h"

#include <sched.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstdlib>
#include <deque>
#include <exception>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "kernels/twin/float_mode.h"

namespace flexllm::kernels::twin {
namespace {

// One parallel_for in progress. Indices are handed out one at a time; the caller waits for `left`.
struct Job {
  const std::function<void(size_t)>* body;
  size_t count;
  std::atomic<size_t> next{0};
  std::atomic<size_t> left;
  std::atomic<bool> failed{false};
  std::exception_ptr error;  // set by the one body that failed first, before `left` becomes 0

  Job(const std::function<void(size_t)>* b, size_t n) : body(b), count(n), left(n) {}

  bool exhausted() const { return next.load(std::memory_order_relaxed) >= count; }

  // The first exception of a body is kept for the caller; the other indices still run.
  void work() {
    for (size_t i = next.fetch_add(1); i < count; i = next.fetch_add(1)) {
      try {
        (*body)(i);
      } catch (...) {
        if (!failed.exchange(true)) error = std::current_exception();
      }
      left.fetch_sub(1, std::memory_order_release);
    }
  }
};

size_t thread_count() {
  size_t count = usable_processors();
  if (const char* limit = std::getenv("FLEXLLM_TWIN_THREADS")) {
    const long wanted = std::strtol(limit, nullptr, 10);
    if (wanted > 0) count = std::min(count, static_cast<size_t>(wanted));
  }
  return std::max<size_t>(count, 1);
}

class Pool {
 public:
  Pool() {
    for (size_t i = 1; i < thread_count(); ++i) threads_.emplace_back([this] { loop(); });
  }

  ~Pool() {
    {
      std::lock_guard lock(mutex_);
      stopping_ = true;
    }
    wake_.notify_all();
    for (auto& thread : threads_) thread.join();
  }

  size_t helpers() const { return threads_.size(); }

  void submit(const std::shared_ptr<Job>& job) {
    {
      std::lock_guard lock(mutex_);
      jobs_.push_back(job);
      pending_.store(jobs_.size(), std::memory_order_release);
    }
    wake_.notify_all();
  }

  void retire(const std::shared_ptr<Job>& job) {
    std::lock_guard lock(mutex_);
    std::erase(jobs_, job);
    pending_.store(jobs_.size(), std::memory_order_release);
  }

 private:
  // Layers follow each other within microseconds: look for the next job a little before sleeping.
  static constexpr int kSpins = 2000;

  void loop() {
    const FlushDenormals float_mode;
    for (;;) {
      for (int spin = 0; spin < kSpins && pending_.load(std::memory_order_acquire) == 0; ++spin) {
        _mm_pause();
      }
      std::shared_ptr<Job> job;
      {
        std::unique_lock lock(mutex_);
        wake_.wait(lock, [this] { return stopping_ || !jobs_.empty(); });
        if (stopping_) return;
        job = jobs_.front();
        if (job->exhausted()) {
          jobs_.pop_front();
          pending_.store(jobs_.size(), std::memory_order_release);
          continue;
        }
      }
      job->work();
    }
  }

  std::mutex mutex_;
  std::condition_variable wake_;
  std::deque<std::shared_ptr<Job>> jobs_;
  std::atomic<size_t> pending_{0};
  bool stopping_ = false;
  std::vector<std::thread> threads_;
};

Pool& pool() {
  static Pool instance;
  return instance;
}

}  // namespace

size_t usable_processors() {
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof set, &set) == 0) return static_cast<size_t>(CPU_COUNT(&set));
  return std::max(1u, std::thread::hardware_concurrency());  // more than a cpu_set_t holds
}

void parallel_for(size_t count, const std::function<void(size_t)>& body) {
  if (count == 0) return;
  if (count == 1 || pool().helpers() == 0) {
    for (size_t i = 0; i < count; ++i) body(i);
    return;
  }
  const auto job = std::make_shared<Job>(&body, count);
  pool().submit(job);
  job->work();
  while (job->left.load(std::memory_order_acquire) != 0) {
    // The last pieces are being computed by others; if they lost their processor, give them ours.
    for (int spin = 0; spin < 1000 && job->left.load(std::memory_order_acquire) != 0; ++spin) {
      _mm_pause();
    }
    if (job->left.load(std::memory_order_acquire) != 0) std::this_thread::yield();
  }
  pool().retire(job);
  if (job->error) std::rethrow_exception(job->error);
}

}  // namespace flexllm::kernels::twin
