// A run of the C simulation in virtual time (docs/cycle-model.md): the card's memory ports go in,
// cycles by region, task, stream and port come out, the same in every run.
//
//   Timeline timeline;
//   const size_t port = timeline.add_port({.name = "w[0]", .read_bytes = 48, .write_bytes = 48});
//   timeline.add_range(port, buffer.data(), bytes);
//   { const Scope scope({.timeline = &timeline});  kernel(...); }
//   const Report report = timeline.report();
//
// One thread at a time may run with a timeline; what several runs take adds up.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <mutex>
#include <string>
#include <vector>

#include "kernels/hls/clock.h"
#include "kernels/hls/latency.h"

namespace flexllm::kernels::simulation {

// An AXI master. Reads and writes have channels of their own.
struct PortSpec {
  std::string name;
  double read_bytes = 64;  // most per cycle: the narrower of its width and its memory's rate
  double write_bytes = 64;
  uint32_t read_latency = latency::memory_read;    // cycles, from request to word
  uint32_t write_latency = latency::memory_write;  // cycles, from word to response
  uint32_t outstanding = 16;  // bursts under way at a time, in each channel; at least 1
};

// Cycles of a task, or of several calls of one.
struct TaskTime {
  std::string region;
  std::string task;
  uint64_t calls = 0;
  uint64_t cycles = 0;  // from begin to end, all below included
  uint64_t waited_to_read = 0;
  uint64_t waited_to_write = 0;
  uint64_t waited_for_memory = 0;
  uint64_t in_regions = 0;  // in regions that it opened

  uint64_t busy() const {
    return cycles - waited_to_read - waited_to_write - waited_for_memory - in_regions;
  }
};

struct StreamUse {
  std::string region;
  std::string stream;
  std::string writer;
  std::string reader;
  size_t depth = 0;      // of several, the largest
  size_t most_held = 0;  // elements at a time
  uint64_t elements = 0;
  uint64_t reader_waited = 0;
  uint64_t writer_waited = 0;
};

struct ChannelUse {
  uint64_t words = 0;
  uint64_t bursts = 0;  // of ascending addresses without a gap
  uint64_t busy = 0;    // cycles in which the channel moves words
  uint64_t waited = 0;  // cycles that tasks waited for it, latency not included
};

struct PortUse {
  std::string name;
  ChannelUse read;
  ChannelUse write;
};

// One run of a region. Level 0 is the outermost.
struct RegionRun {
  std::string region;
  std::string opener;  // the task that opened it
  uint32_t level = 0;
  uint64_t begin = 0;
  uint64_t end = 0;
  std::vector<TaskTime> tasks;  // in the order of their start
  std::vector<StreamUse> streams;
};

struct Report {
  uint64_t cycles = 0;
  std::vector<RegionRun> regions;  // by begin
  std::vector<TaskTime> tasks;     // all calls of a task together, by region and name
  std::vector<StreamUse> streams;  // likewise
  std::vector<PortUse> ports;
};

// Totals, and the begin and end of every region.
std::string to_json(const Report& report);

// One direction of a port, used by one task of a region at a time.
struct Channel {
  std::string name;
  bool writes = false;
  uint64_t word_time = 0;  // of a word, in fractions of a cycle
  uint64_t latency = 0;
  std::vector<uint64_t> ends;  // of the bursts that were under way last, by number
  std::atomic<const TaskClock*> owner{nullptr};
  uint64_t free = 0;      // in fractions: when the next word can start
  uint64_t last_end = 0;  // when the last word is done
  uintptr_t next_address = 0;
  ChannelUse use;

  // The next word, wanted at cycle `now`: the cycle in which it starts.
  uint64_t move(uintptr_t address, uint64_t now);
};

class Timeline {
 public:
  Timeline();
  Timeline(const Timeline&) = delete;
  Timeline& operator=(const Timeline&) = delete;

  // The number of the port. Throws std::invalid_argument.
  size_t add_port(const PortSpec& spec);
  // Memory that is reached through a port. Where ranges overlap, an address belongs to the one that
  // begins nearest below it. Memory of no range costs no time.
  void add_range(size_t port, const void* begin, size_t bytes);

  // Between runs.
  Report report() const;

 private:
  friend class Region;
  friend class Scope;
  friend struct TaskClock;

  struct Port {
    std::string name;
    Channel read;
    Channel write;
  };
  struct Range {
    uintptr_t begin;
    uintptr_t end;
    size_t port;
  };

  ChannelRange find(uintptr_t address, bool writes);
  // Makes a channel the task's. A second task of a region is an Error: the order of their words,
  // and so the time, would depend on the simulation's threads.
  void claim(Channel& channel, const TaskClock& clock);
  // Gives `opener` what the tasks of its region had claimed.
  void release(const TaskClock& opener);
  void record(RegionRun run);

  TaskClock root_;  // of the thread that runs
  std::deque<Port> ports_;
  std::vector<Range> ranges_;  // by begin
  mutable std::mutex mutex_;   // guards what follows, and changes of owners
  std::vector<RegionRun> runs_;
};

}  // namespace flexllm::kernels::simulation
