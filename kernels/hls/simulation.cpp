#include "kernels/hls/simulation.h"

#include <chrono>

#include "kernels/twin/float_mode.h"

namespace flexllm::kernels::simulation {
namespace {

using Clock = std::chrono::steady_clock;

constexpr int kYields = 50;                           // before a blocked task goes to sleep
constexpr std::chrono::milliseconds kLongestNap{50};  // between looks at the state of the region

thread_local Options current_options;
thread_local Region* current_region = nullptr;
thread_local Task* current_task = nullptr;

// "load<C>(a, b)" at 3 becomes "load[3]".
std::string task_name(const char* call, int index) {
  const std::string text(call);
  std::string name = text.substr(0, text.find_first_of("<("));
  if (index >= 0) name.append("[").append(std::to_string(index)).append("]");
  return name;
}

std::string name_of(const Task* task) { return task == nullptr ? "no task" : task->name; }

}  // namespace

Scope::Scope(const Options& options) : saved_(current_options) { current_options = options; }
Scope::~Scope() { current_options = saved_; }

StreamBase::StreamBase(const char* name, size_t depth) : depth_(depth), name_(name) {
  Region* region = current_region;
  if (region == nullptr) return;
  bounded_ = region->options_.mode == Mode::concurrent;
  region->streams_.push_back(this);
}

void StreamBase::rename(const char* name, int index) {
  name_ = name;
  name_.append("[").append(std::to_string(index)).append("]");
}

void StreamBase::claim(std::atomic<const Task*>& end, const char* role) {
  const Task* owner = end.load(std::memory_order_relaxed);
  if (owner == current_task) return;
  if (owner != nullptr) {
    throw Error("stream '" + name_ + "' has a second " + role + ": " + name_of(current_task) +
                " after " + name_of(owner));
  }
  end.store(current_task, std::memory_order_relaxed);
}

void StreamBase::wait_to_read() {
  if (!bounded_) {
    throw Error(name_of(current_task) + " reads stream '" + name_ +
                "', which is empty; its writer is " + name_of(writer_.load()));
  }
  sleep_until(true);
}

void StreamBase::wait_to_write() { sleep_until(false); }

void StreamBase::sleep_until(bool reading) {
  if (current_task == nullptr) throw Error("stream '" + name_ + "' is used outside any task");
  for (int i = 0; i < kYields; ++i) {
    if (ready(reading)) return;
    std::this_thread::yield();
  }
  Region& region = *current_task->region;
  region.enter_blocked(*current_task, *this, reading);
  {
    std::unique_lock<std::mutex> lock(mutex_);
    sleepers_.fetch_add(1, std::memory_order_seq_cst);
    while (!ready(reading) && !region.failed_.load()) changed_.wait_for(lock, kLongestNap);
    sleepers_.fetch_sub(1, std::memory_order_seq_cst);
  }
  region.leave_blocked(*current_task);
  if (!ready(reading)) throw Region::Stalled{};
}

void StreamBase::wake() {
  const std::lock_guard<std::mutex> lock(mutex_);
  changed_.notify_all();
}

Region::Region(const char* name) : name_(name), options_(current_options), outer_(current_region) {
  current_region = this;
}

Region::~Region() {
  join();
  current_region = outer_;
}

void Region::start(const char* call, int index, std::function<void()> body) {
  Task& task = tasks_.emplace_back();
  task.name = task_name(call, index);
  task.region = this;
  if (options_.mode == Mode::sequential) {
    Task* const caller = current_task;
    current_task = &task;
    try {
      body();
    } catch (...) {
      current_task = caller;
      throw;
    }
    current_task = caller;
    return;
  }
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    ++running_;
  }
  try {
    task.thread = std::thread([this, &task, body = std::move(body)] { run(task, body); });
  } catch (...) {
    const std::lock_guard<std::mutex> lock(mutex_);
    --running_;
    error_ = std::current_exception();
    failed_.store(true);
  }
}

void Region::run(Task& task, const std::function<void()>& body) {
  const twin::FlushDenormals float_mode;
  current_options = options_;
  current_task = &task;
  try {
    body();
  } catch (const Stalled&) {
    // Another task has said why.
  } catch (...) {
    fail(std::current_exception());
  }
  const std::lock_guard<std::mutex> lock(mutex_);
  --running_;
  ++wakeups_;
  done_.notify_all();
}

void Region::finish() {
  std::unique_lock<std::mutex> lock(mutex_);
  uint64_t seen = wakeups_;
  Clock::time_point since = Clock::now();
  while (running_ > 0 && !failed_.load()) {
    done_.wait_for(lock, kLongestNap);
    if (blocked_ < running_ || wakeups_ != seen) {
      seen = wakeups_;
      since = Clock::now();
    } else if (std::chrono::duration<double>(Clock::now() - since).count() >
               options_.stall_seconds) {
      if (!error_) error_ = std::make_exception_ptr(Error(describe_stall()));
      failed_.store(true);
    }
  }
  lock.unlock();
  join();
  current_region = outer_;
  if (error_) std::rethrow_exception(error_);
  check_leftovers();
}

void Region::join() {
  if (std::uncaught_exceptions() > 0) failed_.store(true);
  for (Task& task : tasks_) {
    if (task.thread.joinable()) task.thread.join();
  }
}

void Region::enter_blocked(Task& task, const StreamBase& stream, bool reading) {
  const std::lock_guard<std::mutex> lock(mutex_);
  task.blocked_on = &stream;
  task.blocked_reading = reading;
  ++blocked_;
}

void Region::leave_blocked(Task& task) {
  const std::lock_guard<std::mutex> lock(mutex_);
  task.blocked_on = nullptr;
  --blocked_;
  ++wakeups_;
}

void Region::fail(std::exception_ptr error) {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (!error_) error_ = error;
  failed_.store(true);
  done_.notify_all();
}

std::string Region::describe_stall() const {
  std::string text = "dataflow region '" + name_ + "' is stuck:";
  for (const Task& task : tasks_) {
    if (task.blocked_on == nullptr) continue;
    const StreamBase& stream = *task.blocked_on;
    text += "\n  " + task.name + " waits to " + (task.blocked_reading ? "read" : "write") +
            " stream '" + stream.name() + "' (" + std::to_string(stream.size()) + " of " +
            std::to_string(stream.depth_) + " elements, from " + name_of(stream.writer_.load()) +
            " to " + name_of(stream.reader_.load()) + ")";
  }
  return text;
}

void Region::check_leftovers() const {
  for (const StreamBase* stream : streams_) {
    if (stream->empty()) continue;
    throw Error("dataflow region '" + name_ + "': " + std::to_string(stream->size()) +
                " elements are left over in stream '" + stream->name() + "' from " +
                name_of(stream->writer_.load()) + " to " + name_of(stream->reader_.load()));
  }
}

}  // namespace flexllm::kernels::simulation
