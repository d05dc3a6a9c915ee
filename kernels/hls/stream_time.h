// Time stamps of a stream's elements in the C simulation's virtual time (docs/cycle-model.md).
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "kernels/hls/clock.h"
#include "kernels/hls/latency.h"

namespace flexllm::kernels::simulation {

// A stream takes one element a cycle and gives one a cycle.
//
// Belongs to a stream of a timed region, between its writer's and its reader's thread; the stream
// orders their accesses to a place. Depends on nothing but the order in which each task uses its
// streams, so times are the same in every run.
class StreamTime {
 public:
  // Of a stream that holds `depth` elements, in `places` (a power of two, at least as many).
  StreamTime(size_t depth, size_t places)
      : depth_(depth), mask_(places - 1), arrival_(places), freed_(places) {}

  // The writer writes element `n`: waits for its place, and stamps it.
  void write(TaskClock& clock, size_t n) {
    if (n == 0) writer_ = clock.name;
    uint64_t leaves = clock.departure();
    if (leaves < next_leaving_) leaves = next_leaving_;
    if (n >= depth_) {
      const uint64_t free = freed_[(n - depth_) & mask_] + latency::stream;
      if (leaves < free) {
        const uint64_t wait = free - leaves;
        clock.now += wait;
        clock.waited_to_write += wait;
        writer_waited_ += wait;
        leaves = free;
      }
    }
    next_leaving_ = leaves + 1;
    if (clock.settles < leaves) clock.settles = leaves;
    arrival_[n & mask_] = leaves + latency::stream;
  }

  // The reader reads element `n`: waits until it is there, and frees its place.
  void read(TaskClock& clock, size_t n) {
    if (n == 0) reader_ = clock.name;
    const uint64_t arrival = arrival_[n & mask_];
    if (clock.now < arrival) {
      const uint64_t wait = arrival - clock.now;
      clock.now = arrival;
      clock.waited_to_read += wait;
      reader_waited_ += wait;
    }
    // Elements in the stream when element n came: those before it that were not read by then.
    while (first_held_ < n &&
           freed_[first_held_ & mask_] + latency::stream <= arrival - latency::stream) {
      ++first_held_;
    }
    if (n + 1 - first_held_ > most_held_) most_held_ = n + 1 - first_held_;
    if (next_free_ < clock.now) next_free_ = clock.now;
    freed_[n & mask_] = next_free_++;
  }

  // Once both tasks have ended, which may be gone by then.
  const std::string& reader() const { return reader_; }
  const std::string& writer() const { return writer_; }
  uint64_t reader_waited() const { return reader_waited_; }
  uint64_t writer_waited() const { return writer_waited_; }
  size_t most_held() const { return most_held_; }

 private:
  const size_t depth_;
  const size_t mask_;
  std::vector<uint64_t> arrival_;  // first cycle in which the element of a place can be read
  std::vector<uint64_t> freed_;    // when it was read
  alignas(64) uint64_t next_leaving_ = 0;  // the writer's
  uint64_t writer_waited_ = 0;
  std::string writer_;
  alignas(64) uint64_t reader_waited_ = 0;  // the reader's
  uint64_t next_free_ = 0;
  size_t first_held_ = 0;
  size_t most_held_ = 0;
  std::string reader_;
};

}  // namespace flexllm::kernels::simulation
