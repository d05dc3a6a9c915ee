// Virtual time of memory ports in the C simulation: rates, bursts, latency, and who may use them.
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "kernels/tests/time_bench.h"

namespace flexllm::kernels {
namespace {

using simulation::Error;

TEST(PortTime, APortDeliversAtItsRate) {
  constexpr uint32_t kCount = 3000;
  Memory memory({.name = "m", .read_bytes = 48, .write_bytes = 64}, kCount);
  const Report report = memory.run([&] { read_port(memory.words.data(), kCount, 1); });
  // 4/3 cycles a word, and the latency once.
  const double expected = kOverhead + kCount * 4.0 / 3 + latency::memory_read;
  EXPECT_NEAR(static_cast<double>(report.cycles), expected, 3);
  ASSERT_EQ(report.ports.size(), 1u);
  const auto& read = report.ports[0].read;
  EXPECT_EQ(read.words, kCount);
  EXPECT_EQ(read.bursts, 1u);
  EXPECT_NEAR(static_cast<double>(read.busy), kCount * 4.0 / 3, 1);
  EXPECT_NEAR(static_cast<double>(read.waited), kCount / 3.0, 3);
  EXPECT_EQ(task_of(report, "load").waited_for_memory, read.waited);
  EXPECT_EQ(report.ports[0].write.words, 0u);
}

TEST(PortTime, ScatteredWordsAreLimitedByTheBurstsUnderWay) {
  constexpr uint32_t kCount = 400;
  Memory memory({.name = "m", .read_latency = 64, .outstanding = 4}, 2 * kCount);
  const Report report = memory.run([&] { read_port(memory.words.data(), kCount, 2); });
  EXPECT_EQ(report.ports[0].read.bursts, kCount);
  EXPECT_NEAR(static_cast<double>(report.cycles), kCount * 64.0 / 4, 64 + 20);
}

TEST(PortTime, ReadsAndWritesOfAPortDoNotMeet) {
  constexpr uint32_t kCount = 1000;
  Memory memory({.name = "m", .read_bytes = 32, .write_bytes = 64}, 2 * kCount);
  Word* words = memory.words.data();
  const Report report = memory.run([&] {
    HLS_DATAFLOW("copy");
    Fifo<int, 8> link("link");
    HLS_TASK(load(words, kCount, 1, link));
    HLS_TASK(store(kCount, link, words + kCount));
    HLS_DATAFLOW_END();
  });
  EXPECT_EQ(words[2 * kCount - 1].lane[0], kCount - 1);
  // The region ends when its last word is written.
  EXPECT_NEAR(static_cast<double>(report.cycles),
              kOverhead + 2.0 * kCount + latency::memory_read + latency::memory_write, 3);
  EXPECT_EQ(report.ports[0].write.words, kCount);
  EXPECT_EQ(report.ports[0].write.busy, kCount);
}

TEST(PortTime, AWriterWaitsForItsPort) {
  constexpr uint32_t kCount = 300;
  Memory memory({.name = "m", .write_bytes = 16}, kCount);
  const Report report = memory.run([&] {
    HLS_DATAFLOW("slow_port");
    Fifo<int, 2> link("link");
    HLS_TASK(produce(static_cast<int>(kCount), 1, link));
    HLS_TASK(store(kCount, link, memory.words.data()));
    HLS_DATAFLOW_END();
  });
  EXPECT_NEAR(static_cast<double>(report.cycles), kOverhead + 4.0 * kCount + latency::memory_write,
              6);
  EXPECT_NEAR(static_cast<double>(stream_of(report, "link").writer_waited), 3.0 * kCount, 20);
}

TEST(PortTime, UnknownMemoryCostsNothing) {
  std::vector<Word> words(100, zero_word());
  const Report report = timed([&] {
    HLS_DATAFLOW("free");
    Fifo<int, 8> link("link");
    HLS_TASK(produce(100, 1, link));
    HLS_TASK(store(100, link, words.data()));
    HLS_DATAFLOW_END();
  });
  EXPECT_EQ(report.cycles, kOverhead + 100 + latency::stream);
}

TEST(PortTime, RangesMayOverlapAndNeighboursAreFree) {
  std::vector<Word> words(40, zero_word());
  Timeline timeline;
  const size_t low = timeline.add_port({.name = "low"});
  const size_t high = timeline.add_port({.name = "high"});
  timeline.add_range(high, words.data() + 20, 10 * sizeof(Word));
  timeline.add_range(low, words.data() + 10, 20 * sizeof(Word));
  {
    const Scope scope({.timeline = &timeline});
    for (uint32_t i = 0; i < 40; ++i) {
      HLS_PIPELINE(1)
      read_word(words.data(), i);
    }
  }
  const Report report = timeline.report();
  EXPECT_EQ(report.ports[0].read.words, 10u);
  EXPECT_EQ(report.ports[1].read.words, 10u);
}

TEST(PortTime, ASecondReaderOfAPortIsRefused) {
  Memory memory({.name = "m"}, 8);
  const Word* words = memory.words.data();
  std::string message;
  try {
    memory.run([&] {
      HLS_DATAFLOW("two_readers");
      Fifo<int, 8> first("first");
      Fifo<int, 8> second("second");
      HLS_TASK(load(words, 4, 1, first));
      HLS_TASK(consume(4, 1, first));
      HLS_TASK(load(words, 4, 1, second));
      HLS_TASK(consume(4, 1, second));
      HLS_DATAFLOW_END();
    });
  } catch (const Error& error) {
    message = error.what();
  }
  EXPECT_NE(message.find("port 'm' is read by two tasks of a region: load after load"),
            std::string::npos)
      << message;
  // One after the other they may.
  Memory fresh({.name = "m"}, 8);
  const Report report = fresh.run([&] {
    read_port(fresh.words.data(), 4, 1);
    read_port(fresh.words.data(), 4, 1);
  });
  EXPECT_EQ(report.ports[0].read.words, 8u);
}

}  // namespace
}  // namespace flexllm::kernels
