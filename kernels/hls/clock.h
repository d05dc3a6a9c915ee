// The clock of the task that runs on this thread, in the C simulation's virtual time
// (docs/cycle-model.md): what the time macros of pragmas.h and the accesses of memory.h advance.
// There is none in an untimed run, where all of this costs a branch.
#pragma once

#include <cstddef>
#include <cstdint>

namespace flexllm::kernels::simulation {

class Timeline;
struct Channel;

// Addresses that belong to one channel of a port, or to none.
struct ChannelRange {
  uintptr_t begin = 0;
  uintptr_t end = 0;
  Channel* channel = nullptr;

  bool holds(uintptr_t address) const { return address >= begin && address < end; }
};

// Owned by a task, or by a timeline for the thread that opens the outermost regions; used by that
// thread alone while it runs.
struct TaskClock {
  uint64_t now = 0;      // when the present iteration began
  uint64_t depth = 0;    // from there to its writes
  uint64_t arrives = 0;  // when the word of memory read last is here
  uint64_t settles = 0;  // when all words written to memory are there
  uint64_t begin = 0;
  uint64_t waited_to_read = 0;
  uint64_t waited_to_write = 0;
  uint64_t waited_for_memory = 0;
  uint64_t in_regions = 0;  // that the task opened

  const TaskClock* opener = nullptr;  // of the task that opened its region
  const char* name = "";
  Timeline* timeline = nullptr;
  ChannelRange read_range;   // of the last access
  ChannelRange write_range;  // likewise

  // When what the present iteration writes leaves the task.
  uint64_t departure() const { return (now > arrives ? now : arrives) + depth; }

  // Waits for everything that is under way: the end of a task, or the start of a region.
  void drain();

  void read_memory(uintptr_t address);
  void write_memory(uintptr_t address);
};

inline constinit thread_local TaskClock* current_clock = nullptr;

inline void advance(uint64_t cycles) {
  if (TaskClock* clock = current_clock) clock->now += cycles;
}

inline void set_depth(uint64_t cycles) {
  if (TaskClock* clock = current_clock) clock->depth = cycles;
}

inline void time_read(const void* word) {
  if (TaskClock* clock = current_clock) clock->read_memory(reinterpret_cast<uintptr_t>(word));
}

inline void time_write(const void* word) {
  if (TaskClock* clock = current_clock) clock->write_memory(reinterpret_cast<uintptr_t>(word));
}

}  // namespace flexllm::kernels::simulation
