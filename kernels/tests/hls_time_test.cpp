// Virtual time of the C simulation: designs whose cycles are known in closed form.
#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <string>
#include <vector>

#include "kernels/tests/time_bench.h"

namespace flexllm::kernels {
namespace {

using simulation::Error;
using simulation::Mode;

template <int Depth>
void pair(int count, int producer, int consumer) {
  HLS_DATAFLOW("pair");
  Fifo<int, Depth> link("link");
  HLS_TASK(produce(count, producer, link));
  HLS_TASK(consume(count, consumer, link));
  HLS_DATAFLOW_END();
}

TEST(Time, ASlowReaderHoldsItsWriterBack) {
  constexpr int kCount = 100;
  const Report report = timed([] { pair<4>(kCount, 1, 2); });
  EXPECT_EQ(report.cycles, kOverhead + 2 * kCount);
  const auto& link = stream_of(report, "link");
  EXPECT_EQ(link.elements, 100u);
  EXPECT_EQ(link.most_held, 4u);
  EXPECT_EQ(link.depth, 4u);
  EXPECT_EQ(link.writer, "produce");
  EXPECT_EQ(link.reader, "consume");
  EXPECT_EQ(link.reader_waited, 0u);
  // Element i is written a cycle after element i - 4 is read, at 2 + 2 (i - 4) from the tasks'
  // start; without waiting, at 1 + i.
  EXPECT_EQ(link.writer_waited, 3 + 2 * (kCount - 1 - 4) - uint64_t{kCount});
  const auto& producer = task_of(report, "produce");
  EXPECT_EQ(producer.waited_to_write, link.writer_waited);
  EXPECT_EQ(producer.busy(), uint64_t{kCount});
  EXPECT_EQ(task_of(report, "consume").busy(), 2u * kCount);
}

TEST(Time, ASlowWriterStarvesItsReader) {
  constexpr int kCount = 50;
  const Report report = timed([] { pair<4>(kCount, 3, 1); });
  EXPECT_EQ(report.cycles, kOverhead + 3 * kCount + latency::stream);
  EXPECT_EQ(stream_of(report, "link").most_held, 1u);
  const auto& consumer = task_of(report, "consume");
  EXPECT_EQ(consumer.waited_to_read, 2u * kCount + latency::stream);
  EXPECT_EQ(consumer.busy(), uint64_t{kCount});
}

TEST(Time, ADepthOfOneHalvesTheRateAndTwoSustainIt) {
  constexpr int kCount = 64;
  EXPECT_EQ(timed([] { pair<1>(kCount, 1, 1); }).cycles, kOverhead + 2 * kCount);
  EXPECT_EQ(timed([] { pair<2>(kCount, 1, 1); }).cycles, kOverhead + kCount + 1);
}

void chain(int count, const std::vector<int>& intervals, const std::vector<int>& depths) {
  HLS_DATAFLOW("chain");
  Fifo<int, 2> links[8];
  name_streams(links, "links");
  const auto last = static_cast<int>(intervals.size()) - 1;
  HLS_TASK(produce(count, intervals[0], links[0]));
  for (int i = 1; i < last; ++i) {
    const auto at = static_cast<size_t>(i);
    HLS_TASK_AT(at, pass(count, intervals[at], depths[at], links[at - 1], links[at]));
  }
  HLS_TASK(consume(count, intervals.back(), links[last - 1]));
  HLS_DATAFLOW_END();
}

TEST(Time, DepthsAddUpOnceAlongAChain) {
  constexpr int kCount = 40;
  const Report report = timed([] { chain(kCount, {1, 1, 1, 1, 1}, {0, 20, 7, 16, 0}); });
  EXPECT_EQ(report.cycles, kOverhead + kCount + 20 + 7 + 16 + 4 * latency::stream);
  EXPECT_EQ(task_of(report, "pass[2]").waited_to_read, 20 + 2 * latency::stream);
}

TEST(Time, RandomChainsRunAtTheLargestInterval) {
  std::mt19937 random(5);
  const auto draw = [&](int most) {
    return static_cast<int>(random() % static_cast<uint32_t>(most));
  };
  for (int round = 0; round < 20; ++round) {
    const auto stages = static_cast<size_t>(2 + draw(6));
    std::vector<int> intervals(stages), depths(stages);
    for (int& interval : intervals) interval = 1 + draw(5);
    for (int& depth : depths) depth = draw(30);
    const int count = 1 + draw(200);
    const int largest = *std::max_element(intervals.begin(), intervals.end());
    // The first element meets every stage's interval and depth, and a cycle in every stream.
    uint64_t fill = 0;
    for (size_t i = 0; i < stages; ++i) {
      const uint64_t interval = static_cast<uint64_t>(intervals[i]);
      const uint64_t arrived = i == 0 ? interval : std::max(interval, fill);
      const bool writes = i + 1 < stages;
      const int depth = i > 0 && writes ? depths[i] : 0;
      fill = arrived + static_cast<uint64_t>(depth) + (writes ? latency::stream : 0);
    }
    const Report report = timed([&] { chain(count, intervals, depths); });
    const auto rest = static_cast<uint64_t>((count - 1) * largest);
    EXPECT_GE(report.cycles, kOverhead + static_cast<uint64_t>(count * largest));
    EXPECT_EQ(report.cycles, kOverhead + fill + rest) << "round " << round;
  }
}

void ping(int count, Stream<int>& out, Stream<int>& in) {
  for (int i = 0; i < count; ++i) {
    HLS_PIPELINE(1)
    out.write(i);
    EXPECT_EQ(in.read(), i);
  }
}

TEST(Time, ARoundTripPaysBothStreamsAndTheDepth) {
  constexpr int kCount = 30;
  const Report report = timed([] {
    HLS_DATAFLOW("ping_pong");
    Fifo<int, 2> there("there");
    Fifo<int, 2> back("back");
    HLS_TASK(ping(kCount, there, back));
    HLS_TASK(pass(kCount, 1, 9, there, back));
    HLS_DATAFLOW_END();
  });
  EXPECT_EQ(report.cycles, kOverhead + kCount * (1 + 9 + 2 * latency::stream));
  EXPECT_EQ(stream_of(report, "there").most_held, 1u);
}

void fill_and_send(int blocks, int block, Stream<int>& in, Stream<int>& out) {
  std::vector<int> kept(static_cast<size_t>(block));
  for (int b = 0; b < blocks; ++b) {
    for (int& value : kept) {
      HLS_PIPELINE(1)
      value = in.read();
    }
    HLS_LATENCY(10)
    for (const int value : kept) {
      HLS_PIPELINE(1)
      out.write(value);
    }
  }
}

TEST(Time, ABlockThatIsKeptCostsItsLengthTwice) {
  constexpr int kBlocks = 5, kBlock = 32;
  const Report report = timed([] {
    HLS_DATAFLOW("blocks");
    Fifo<int, 2> in("in");
    Fifo<int, kBlock> out("out");
    HLS_TASK(produce(kBlocks * kBlock, 1, in));
    HLS_TASK(fill_and_send(kBlocks, kBlock, in, out));
    HLS_TASK(consume(kBlocks * kBlock, 1, out));
    HLS_DATAFLOW_END();
  });
  // Two elements wait for each block but the first, whose first one is a cycle late.
  EXPECT_EQ(report.cycles, kOverhead + kBlocks * (2 * kBlock + 10) + 2 * latency::stream);
}

void two_a_cycle(int count, Stream<int>& out) {
  HLS_PIPELINE(1)
  for (int i = 0; i < count; ++i) out.write(i);
}

TEST(Time, AStreamTakesOneElementACycle) {
  const Report report = timed([] {
    HLS_DATAFLOW("wide");
    Fifo<int, 64> link("link");
    HLS_TASK(two_a_cycle(64, link));
    HLS_TASK(consume(64, 1, link));
    HLS_DATAFLOW_END();
  });
  EXPECT_EQ(report.cycles, kOverhead + 64 + latency::stream);
}

// Regions.

void inner(int count, int depth, Stream<int>& in, Stream<int>& out) {
  HLS_DATAFLOW("inner");
  Fifo<int, 2> middle("middle");
  HLS_TASK(pass(count, 1, depth, in, middle));
  HLS_TASK(pass(count, 1, 3, middle, out));
  HLS_DATAFLOW_END();
}

void outer(int count) {
  HLS_DATAFLOW("outer");
  Fifo<int, 2> in("in");
  Fifo<int, 2> out("out");
  HLS_TASK(produce(count, 1, in));
  HLS_TASK(inner(count, 11, in, out));
  HLS_TASK(consume(count, 1, out));
  HLS_DATAFLOW_END();
}

TEST(Time, ANestedRegionStartsLaterAndEndsForItsOpener) {
  constexpr int kCount = 25;
  const Report report = timed([] { outer(kCount); });
  // The inner tasks start a region's start later; the first element then waits for them.
  const uint64_t inner_end = latency::region_start + 1 + 11 + 1 + (kCount - 1) + 3;
  EXPECT_EQ(report.cycles, kOverhead + inner_end + latency::region_end);
  ASSERT_EQ(report.regions.size(), 2u);
  EXPECT_EQ(report.regions[0].region, "outer");
  EXPECT_EQ(report.regions[0].level, 0u);
  EXPECT_EQ(report.regions[0].begin, 0u);
  EXPECT_EQ(report.regions[0].end, report.cycles);
  EXPECT_EQ(report.regions[1].region, "inner");
  EXPECT_EQ(report.regions[1].opener, "inner");
  EXPECT_EQ(report.regions[1].level, 1u);
  EXPECT_EQ(report.regions[1].begin, uint64_t{latency::region_start});
  const auto& opener = task_of(report, "inner");
  EXPECT_EQ(opener.in_regions, opener.cycles);
  EXPECT_EQ(opener.busy(), 0u);
}

TEST(Time, RegionsAndTheCallersOwnCyclesAddUp) {
  const Report report = timed([] {
    HLS_LATENCY(17)
    pair<4>(10, 1, 2);
    for (int i = 0; i < 5; ++i) {
      HLS_PIPELINE(3)
    }
    pair<4>(20, 1, 2);
  });
  EXPECT_EQ(report.cycles, 17 + kOverhead + 20 + 15 + kOverhead + 40);
  ASSERT_EQ(report.regions.size(), 2u);
  EXPECT_EQ(report.regions[1].begin, 17 + kOverhead + 20 + 15);
  EXPECT_EQ(task_of(report, "consume").calls, 2u);
  EXPECT_EQ(task_of(report, "consume").busy(), 60u);
}

TEST(Time, IsTheSameInEveryRun) {
  const auto run = [] {
    Memory memory({.name = "m", .read_bytes = 40}, 500);
    return to_json(memory.run([&] {
      outer(120);
      chain(200, {1, 3, 1, 2, 1}, {0, 8, 2, 30, 0});
      read_port(memory.words.data(), 250, 2);
    }));
  };
  const std::string first = run();
  for (int i = 1; i < 20; ++i) ASSERT_EQ(run(), first);
}

TEST(Time, ReportsAsJson) {
  Memory memory({.name = "m"}, 8);
  const std::string json = to_json(memory.run([&] { read_port(memory.words.data(), 8, 1); }));
  EXPECT_NE(json.find(R"("port":"m","read":{"words":8,"bursts":1,"busy":8,"waited":0})"),
            std::string::npos)
      << json;
  EXPECT_NE(json.find(R"({"region":"read_port","opener":"","level":0,"begin":0,"end":)"),
            std::string::npos)
      << json;
  EXPECT_NE(json.find(R"("stream":"link","writer":"load",)"), std::string::npos) << json;
}

TEST(Time, AStallIsStillReported) {
  Timeline timeline;
  const Scope scope({.stall_seconds = 0.3, .timeline = &timeline});
  try {
    HLS_DATAFLOW("starved");
    Fifo<int, 2> link("link");
    HLS_TASK(produce(3, 1, link));
    HLS_TASK(consume(4, 1, link));
    HLS_DATAFLOW_END();
    FAIL() << "no stall";
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("consume waits to read stream 'link'"),
              std::string::npos)
        << error.what();
  }
}

TEST(Time, IsKeptInConcurrentModeOnlyAndByOneTimeline) {
  Timeline timeline, other;
  EXPECT_THROW(Scope({.mode = Mode::sequential, .timeline = &timeline}), Error);
  const Scope scope({.timeline = &timeline});
  const auto change = [&](Stream<int>& out) {
    const Scope inside({.timeline = &other});
    out.write(1);
  };
  const auto run = [&] {
    HLS_DATAFLOW("change");
    Fifo<int, 2> link("link");
    HLS_TASK(change(link));
    HLS_DATAFLOW_END();
  };
  EXPECT_THROW(run(), Error);
  EXPECT_THROW(timeline.add_port({.name = "still", .read_bytes = 0}), std::invalid_argument);
  EXPECT_THROW(timeline.add_port({.name = "none", .outstanding = 0}), std::invalid_argument);
  EXPECT_THROW(timeline.add_range(0, nullptr, 64), std::invalid_argument);
}

TEST(Time, UntimedRunsKeepNone) {
  pair<4>(10, 1, 2);
  EXPECT_EQ(simulation::current_clock, nullptr);
}

}  // namespace
}  // namespace flexllm::kernels
