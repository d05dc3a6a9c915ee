// C simulation of dataflow: what Stream, Fifo and HLS_TASK are when no HLS compiler is at work.
//
// Concurrent mode: the tasks of a region are threads, a Fifo holds as many elements as declared,
// and a stall ends the run with an Error that names the streams and the tasks. Sequential mode:
// tasks run one after the other in program order on the caller's thread, streams are unbounded, and
// reading an empty one is an Error. Both give the same bits. In both a second writer or reader of a
// stream and elements left over at the end of a region are Errors. A stream outside any region
// behaves as in sequential mode, which is how a testbench drives one module.
//
// With a Timeline, concurrent mode also keeps virtual time (timeline.h, stream_time.h).
//
// A region belongs to the thread that made it; tasks may open regions of their own. All threads
// hold twin::FlushDenormals.
#pragma once

#include <pthread.h>

#include <atomic>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <exception>
#include <functional>
#include <memory>
#include <mutex>
#include <stdexcept>
#include <string>
#include <vector>

#include "kernels/hls/clock.h"
#include "kernels/hls/stream_time.h"
#include "kernels/hls/timeline.h"

namespace flexllm::kernels::simulation {

// A mistake in the design that was simulated: deadlock, starved or overfull stream.
class Error : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

enum class Mode { concurrent, sequential };

struct Options {
  Mode mode = Mode::concurrent;
  double stall_seconds = 5.0;    // all tasks blocked for this long: the run is stuck
  Timeline* timeline = nullptr;  // concurrent mode: keeps the time
};

// Options of the regions that this thread and the tasks below it open, while it lives. An Error: a
// timeline in sequential mode, or another timeline inside a region.
class Scope {
 public:
  explicit Scope(const Options& options);
  ~Scope();
  Scope(const Scope&) = delete;
  Scope& operator=(const Scope&) = delete;

 private:
  Options saved_;
  TaskClock* saved_clock_;
};

class Region;
class StreamBase;

struct Task;

// A thread for a task, with a stack that holds the largest on-chip memories.
class TaskThread {
 public:
  bool start(Task& task);  // false: the system has no thread left
  void join();             // at most once does something

 private:
  static void* run(void* task);

  pthread_t thread_{};
  bool running_ = false;
};

// One call in a region. Its name is the called function, with the index of a replicated task.
struct Task {
  std::string name;
  Region* region = nullptr;
  std::function<void()> body;
  TaskThread thread;
  TaskClock clock;                         // of a timed run
  const StreamBase* blocked_on = nullptr;  // guarded by the run, as is the next
  bool blocked_reading = false;
};

// The parts of a stream that do not depend on the type of its elements.
class StreamBase {
 public:
  StreamBase(const StreamBase&) = delete;
  StreamBase& operator=(const StreamBase&) = delete;

  const std::string& name() const { return name_; }
  void rename(const char* name, int index);
  // A line about `waiting`, which is blocked on this stream.
  std::string describe(const Task& waiting) const;
  bool empty() const { return size() == 0; }
  size_t size() const {
    return written_.load(std::memory_order_acquire) - read_.load(std::memory_order_acquire);
  }

 protected:
  StreamBase(const char* name, size_t depth);
  ~StreamBase() = default;

  static size_t power_of_two(size_t at_least) {
    size_t size = 1;
    while (size < at_least) size *= 2;
    return size;
  }

  // Return when there is an element or a free place; throw if that can never be.
  void wait_to_read();
  void wait_to_write();
  void claim(std::atomic<const Task*>& end, const char* role);

  void after_read() {
    read_.fetch_add(1, std::memory_order_seq_cst);
    if (sleepers_.load(std::memory_order_seq_cst) != 0) wake();
  }
  void after_write() {
    written_.fetch_add(1, std::memory_order_seq_cst);
    if (sleepers_.load(std::memory_order_seq_cst) != 0) wake();
  }

  bool bounded_ = false;
  size_t depth_;
  std::unique_ptr<StreamTime> time_;            // in a timed region
  alignas(64) std::atomic<size_t> written_{0};  // elements so far; only the writer adds
  alignas(64) std::atomic<size_t> read_{0};     // likewise, only the reader
  alignas(64) std::atomic<const Task*> writer_{nullptr};
  std::atomic<const Task*> reader_{nullptr};

 private:
  friend class Region;
  void sleep_until(bool reading);
  bool ready(bool reading) const { return reading ? size() > 0 : size() < depth_; }
  void wake();

  std::string name_;
  std::atomic<int> sleepers_{0};
  std::mutex mutex_;
  std::condition_variable changed_;
};

// A stream of T: bounded ring between two threads, or an unbounded queue on one.
template <typename T>
class Stream : public StreamBase {
 public:
  T read() {
    claim(reader_, "reader");
    if (size() == 0) wait_to_read();
    const size_t n = read_.load(std::memory_order_relaxed);
    const T value = slots_[n & (slots_.size() - 1)];
    if (time_) time_->read(*current_clock, n);
    after_read();
    return value;
  }

  void write(const T& value) {
    claim(writer_, "writer");
    if (size() >= depth_) {
      if (bounded_) {
        wait_to_write();
      } else {
        grow();
      }
    }
    const size_t n = written_.load(std::memory_order_relaxed);
    slots_[n & (slots_.size() - 1)] = value;
    if (time_) time_->write(*current_clock, n);
    after_write();
  }

 protected:
  Stream(const char* name, size_t depth) : StreamBase(name, depth), slots_(power_of_two(depth)) {}
  ~Stream() = default;

 private:
  // Unbounded streams: twice the room, elements at the same running numbers.
  void grow() {
    std::vector<T> larger(slots_.size() * 2);
    for (size_t i = read_.load(); i != written_.load(); ++i) {
      larger[i & (larger.size() - 1)] = slots_[i & (slots_.size() - 1)];
    }
    slots_.swap(larger);
    depth_ = slots_.size();
  }

  std::vector<T> slots_;
};

// A stream with its depth, in elements.
template <typename T, int Depth>
class Fifo : public Stream<T> {
  static_assert(Depth >= 1, "a stream holds at least one element");

 public:
  explicit Fifo(const char* name = "unnamed") : Stream<T>(name, Depth) {}
};

// What a region and the regions that its tasks open have in common.
struct Run;

// The tasks and streams between HLS_DATAFLOW and HLS_DATAFLOW_END.
class Region {
 public:
  explicit Region(const char* name);
  ~Region();
  Region(const Region&) = delete;
  Region& operator=(const Region&) = delete;

  // Starts a task, or runs it (sequential mode). `call` is the source text of the call.
  void start(const char* call, int index, std::function<void()> body);

  // Waits for all tasks and checks for leftovers; the outermost region watches for stalls and
  // rethrows the first exception of a task.
  void finish();

 private:
  friend class StreamBase;
  friend class TaskThread;
  struct Stalled {};  // unwinds the other tasks of a run that failed

  void run_task(Task& task);
  void wait_for_tasks();
  void join();
  void close();
  std::string leftovers() const;
  bool timed() const { return options_.timeline != nullptr; }
  void record_time();

  const std::string name_;
  const Options options_;
  Region* const outer_;            // of this thread
  Task* const opener_;             // the task that opened it, if any
  TaskClock* const opener_clock_;  // of a timed run
  std::shared_ptr<Run> run_;
  std::vector<StreamBase*> streams_;
  std::deque<Task> tasks_;
  size_t unfinished_ = 0;  // guarded by the run
  uint64_t begin_ = 0;     // of a timed run
  bool open_ = true;
};

}  // namespace flexllm::kernels::simulation
