// What the tests of virtual time share: tasks of known intervals, and a memory behind a port.
#pragma once

#include <gtest/gtest.h>

#include <stdexcept>
#include <string>
#include <vector>

#include "kernels/hls/memory.h"
#include "kernels/hls/stream.h"
#include "kernels/hls/task.h"

namespace flexllm::kernels {

using simulation::PortSpec;
using simulation::Report;
using simulation::Scope;
using simulation::Timeline;

inline constexpr uint64_t kOverhead = latency::region_start + latency::region_end;

inline void produce(int count, int interval, Stream<int>& out) {
  for (int i = 0; i < count; ++i) {
    HLS_PIPELINE(interval)
    out.write(i);
  }
}

inline void pass(int count, int interval, int depth, Stream<int>& in, Stream<int>& out) {
  HLS_DEPTH(depth)
  for (int i = 0; i < count; ++i) {
    HLS_PIPELINE(interval)
    out.write(in.read());
  }
}

inline void consume(int count, int interval, Stream<int>& in) {
  for (int i = 0; i < count; ++i) {
    HLS_PIPELINE(interval)
    EXPECT_EQ(in.read(), i);
  }
}

template <typename Body>
Report timed(const Body& body) {
  Timeline timeline;
  {
    const Scope scope({.timeline = &timeline});
    body();
  }
  return timeline.report();
}

inline const simulation::TaskTime& task_of(const Report& report, const std::string& name) {
  for (const auto& task : report.tasks) {
    if (task.task == name) return task;
  }
  throw std::out_of_range("no task " + name);
}

inline const simulation::StreamUse& stream_of(const Report& report, const std::string& name) {
  for (const auto& stream : report.streams) {
    if (stream.stream == name) return stream;
  }
  throw std::out_of_range("no stream " + name);
}

inline void load(const Word* buffer, uint32_t count, uint32_t stride, Stream<int>& out) {
  for (uint32_t i = 0; i < count; ++i) {
    HLS_PIPELINE(1)
    out.write(static_cast<int>(get_lane(read_word(buffer, i * stride), 0)));
  }
}

inline void store(uint32_t count, Stream<int>& in, Word* buffer) {
  for (uint32_t i = 0; i < count; ++i) {
    HLS_PIPELINE(1)
    Word word = zero_word();
    set_lane(word, 0, static_cast<uint32_t>(in.read()));
    write_word(buffer, i, word);
  }
}

struct Memory {
  Memory(const PortSpec& spec, size_t size) : words(size) {
    for (size_t i = 0; i < size; ++i) words[i].lane[0] = static_cast<uint32_t>(i);
    timeline.add_range(timeline.add_port(spec), words.data(), size * sizeof(Word));
  }
  template <typename Body>
  Report run(const Body& body) {
    {
      const Scope scope({.timeline = &timeline});
      body();
    }
    return timeline.report();
  }

  Timeline timeline;
  std::vector<Word> words;
};

inline void read_port(const Word* words, uint32_t count, uint32_t stride) {
  HLS_DATAFLOW("read_port");
  Fifo<int, 8> link("link");
  HLS_TASK(load(words, count, stride, link));
  HLS_TASK([&] {
    for (uint32_t i = 0; i < count; ++i) EXPECT_EQ(link.read(), static_cast<int>(i * stride));
  }());
  HLS_DATAFLOW_END();
}

}  // namespace flexllm::kernels
