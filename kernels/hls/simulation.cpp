#include "kernels/hls/simulation.h"

#include <algorithm>
#include <chrono>
#include <thread>
#include <utility>

#include "kernels/twin/float_mode.h"

namespace flexllm::kernels::simulation {
namespace {

using Clock = std::chrono::steady_clock;

constexpr size_t kStackBytes = size_t{32} << 20;      // on-chip memories are local arrays of a task
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

// Sets a variable and puts the old value back at the end of the scope.
template <typename T>
class Restore {
 public:
  Restore(T& variable, T value) : variable_(variable), saved_(variable) { variable_ = value; }
  ~Restore() { variable_ = saved_; }
  Restore(const Restore&) = delete;
  Restore& operator=(const Restore&) = delete;

 private:
  T& variable_;
  T saved_;
};

std::string name_of(const Task* task) { return task == nullptr ? "no task" : task->name; }

}  // namespace

struct Run {
  std::atomic<bool> failed{false};
  std::mutex mutex;  // guards what follows, and what Task and Region say is guarded by the run
  std::condition_variable changed;
  size_t active = 0;   // tasks that are not finished and do not wait for a region of their own
  size_t blocked = 0;  // of these, waiting for a stream
  uint64_t steps = 0;  // changes whenever a blocked task goes on or a task ends
  std::vector<const std::deque<Task>*> regions;  // open ones
  std::deque<std::deque<Task>> ended;            // tasks that streams may still name
  std::exception_ptr error;

  // Call with the mutex held.
  void fail(std::exception_ptr reason) {
    if (!error) error = std::move(reason);
    failed.store(true);
    changed.notify_all();
  }
};

namespace {

std::string describe_stall(const std::string& name, const Run& run) {
  std::string text = "dataflow region '" + name + "' is stuck:";
  for (const std::deque<Task>* tasks : run.regions) {
    for (const Task& task : *tasks) {
      if (task.blocked_on != nullptr) text.append(task.blocked_on->describe(task));
    }
  }
  return text;
}

}  // namespace

bool TaskThread::start(Task& task) {
  pthread_attr_t attributes;
  if (pthread_attr_init(&attributes) != 0) return false;
  running_ = pthread_attr_setstacksize(&attributes, kStackBytes) == 0 &&
             pthread_create(&thread_, &attributes, &TaskThread::run, &task) == 0;
  pthread_attr_destroy(&attributes);
  return running_;
}

void TaskThread::join() {
  if (running_) pthread_join(thread_, nullptr);
  running_ = false;
}

void* TaskThread::run(void* task) {
  static_cast<Task*>(task)->region->run_task(*static_cast<Task*>(task));
  return nullptr;
}

Scope::Scope(const Options& options) : saved_(current_options), saved_clock_(current_clock) {
  if (options.timeline != nullptr && options.mode != Mode::concurrent) {
    throw Error("only concurrent mode keeps time");
  }
  if (current_region != nullptr || current_task != nullptr) {
    if (options.timeline != saved_.timeline) throw Error("another timeline inside a region");
  } else {
    current_clock = options.timeline != nullptr ? &options.timeline->root_ : nullptr;
  }
  current_options = options;
}

Scope::~Scope() {
  current_options = saved_;
  current_clock = saved_clock_;
}

StreamBase::StreamBase(const char* name, size_t depth) : depth_(depth), name_(name) {
  Region* region = current_region;
  if (region == nullptr) return;
  bounded_ = region->options_.mode == Mode::concurrent;
  if (region->timed()) time_ = std::make_unique<StreamTime>(depth, power_of_two(depth));
  region->streams_.push_back(this);
}

void StreamBase::rename(const char* name, int index) {
  name_ = name;
  name_.append("[").append(std::to_string(index)).append("]");
}

void StreamBase::claim(std::atomic<const Task*>& end, const char* role) {
  const Task* owner = end.load(std::memory_order_relaxed);
  if (owner == current_task) return;
  if (owner == nullptr && end.compare_exchange_strong(owner, current_task)) return;
  throw Error("stream '" + name_ + "' has a second " + role + ": " + name_of(current_task) +
              " after " + name_of(owner));
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
  Task& task = *current_task;
  Run& run = *task.region->run_;
  {
    const std::lock_guard<std::mutex> lock(run.mutex);
    task.blocked_on = this;
    task.blocked_reading = reading;
    ++run.blocked;
  }
  {
    std::unique_lock<std::mutex> lock(mutex_);
    sleepers_.fetch_add(1, std::memory_order_seq_cst);
    while (!ready(reading) && !run.failed.load()) changed_.wait_for(lock, kLongestNap);
    sleepers_.fetch_sub(1, std::memory_order_seq_cst);
  }
  {
    const std::lock_guard<std::mutex> lock(run.mutex);
    task.blocked_on = nullptr;
    --run.blocked;
    ++run.steps;
  }
  if (!ready(reading)) throw Region::Stalled{};
}

std::string StreamBase::describe(const Task& waiting) const {
  return "\n  " + waiting.name + " waits to " + (waiting.blocked_reading ? "read" : "write") +
         " stream '" + name_ + "' (" + std::to_string(size()) + " of " + std::to_string(depth_) +
         " elements, from " + name_of(writer_.load()) + " to " + name_of(reader_.load()) + ")";
}

void StreamBase::wake() {
  const std::lock_guard<std::mutex> lock(mutex_);
  changed_.notify_all();
}

Region::Region(const char* name)
    : name_(name),
      options_(current_options),
      outer_(current_region),
      opener_(current_task),
      opener_clock_(current_clock),
      run_(opener_ != nullptr ? opener_->region->run_ : std::make_shared<Run>()) {
  current_region = this;
  if (timed()) {
    opener_clock_->drain();
    begin_ = opener_clock_->now;
  }
  const std::lock_guard<std::mutex> lock(run_->mutex);
  run_->regions.push_back(&tasks_);
}

Region::~Region() {
  if (!open_) return;
  // finish() was not reached: an exception is on its way.
  run_->failed.store(true);
  join();
  close();
}

void Region::start(const char* call, int index, std::function<void()> body) {
  Task* task = nullptr;
  {
    const std::lock_guard<std::mutex> lock(run_->mutex);
    task = &tasks_.emplace_back();
  }
  task->name = task_name(call, index);
  task->region = this;
  if (options_.mode == Mode::sequential) {
    const Restore<Task*> caller(current_task, task);
    body();
    return;
  }
  {
    const std::lock_guard<std::mutex> lock(run_->mutex);
    ++run_->active;
    ++unfinished_;
  }
  task->body = std::move(body);
  if (timed()) {
    TaskClock& clock = task->clock;
    clock.begin = clock.now = begin_ + latency::region_start;
    clock.opener = opener_clock_;
    clock.name = task->name.c_str();
    clock.timeline = options_.timeline;
  }
  if (!task->thread.start(*task)) {
    const std::lock_guard<std::mutex> lock(run_->mutex);
    --run_->active;
    --unfinished_;
    run_->fail(std::make_exception_ptr(Error("no thread for task " + task->name)));
  }
}

void Region::run_task(Task& task) {
  const twin::FlushDenormals float_mode;
  current_options = options_;
  current_task = &task;
  if (timed()) current_clock = &task.clock;
  std::exception_ptr error;
  try {
    task.body();
  } catch (const Stalled&) {
    // Another task has said why.
  } catch (...) {
    error = std::current_exception();
  }
  const std::lock_guard<std::mutex> lock(run_->mutex);
  --run_->active;
  --unfinished_;
  ++run_->steps;
  if (error) run_->fail(error);
  run_->changed.notify_all();
}

void Region::wait_for_tasks() {
  Run& run = *run_;
  std::unique_lock<std::mutex> lock(run.mutex);
  if (opener_ != nullptr) {
    --run.active;
    while (unfinished_ > 0) run.changed.wait_for(lock, kLongestNap);
    ++run.active;
    ++run.steps;
    return;
  }
  uint64_t seen = run.steps;
  Clock::time_point since = Clock::now();
  while (unfinished_ > 0 && !run.failed.load()) {
    run.changed.wait_for(lock, kLongestNap);
    if (run.blocked < run.active || run.steps != seen) {
      seen = run.steps;
      since = Clock::now();
    } else if (std::chrono::duration<double>(Clock::now() - since).count() >
               options_.stall_seconds) {
      run.fail(std::make_exception_ptr(Error(describe_stall(name_, run))));
    }
  }
}

void Region::finish() {
  if (options_.mode == Mode::concurrent) wait_for_tasks();
  join();
  const bool failed = run_->failed.load();
  const std::string left = failed ? std::string() : leftovers();
  if (timed() && !failed) record_time();
  close();
  if (failed) {
    if (opener_ != nullptr) throw Stalled{};
    std::rethrow_exception(run_->error);
  }
  if (!left.empty()) throw Error(left);
}

// Once all tasks have ended: their times, and that of the region to its opener.
void Region::record_time() {
  RegionRun run;
  run.region = name_;
  run.opener = opener_clock_->name;
  for (const TaskClock* at = opener_clock_->opener; at != nullptr; at = at->opener) ++run.level;
  run.begin = begin_;
  run.end = begin_ + latency::region_start;
  for (Task& task : tasks_) {
    TaskClock& clock = task.clock;
    clock.drain();
    run.end = std::max(run.end, clock.now);
    run.tasks.push_back({name_, task.name, 1, clock.now - clock.begin, clock.waited_to_read,
                         clock.waited_to_write, clock.waited_for_memory, clock.in_regions});
  }
  run.end += latency::region_end;
  for (const StreamBase* stream : streams_) {
    const StreamTime& time = *stream->time_;
    run.streams.push_back({name_, stream->name(), time.writer(), time.reader(), stream->depth_,
                           time.most_held(), stream->read_.load(), time.reader_waited(),
                           time.writer_waited()});
  }
  opener_clock_->in_regions += run.end - run.begin;
  opener_clock_->now = run.end;
  options_.timeline->record(std::move(run));
}

void Region::join() {
  for (Task& task : tasks_) task.thread.join();
}

// Takes the region out of the run.
void Region::close() {
  if (timed()) options_.timeline->release(*opener_clock_);
  const std::lock_guard<std::mutex> lock(run_->mutex);
  auto& regions = run_->regions;
  regions.erase(std::find(regions.begin(), regions.end(), &tasks_));
  run_->ended.push_back(std::move(tasks_));
  current_region = outer_;
  open_ = false;
}

std::string Region::leftovers() const {
  for (const StreamBase* stream : streams_) {
    if (stream->empty()) continue;
    return "dataflow region '" + name_ + "': " + std::to_string(stream->size()) +
           " elements are left over in stream '" + stream->name() + "' from " +
           name_of(stream->writer_.load()) + " to " + name_of(stream->reader_.load());
  }
  return {};
}

}  // namespace flexllm::kernels::simulation
