// The dataflow runtime of the C simulation: what it carries, and what it refuses.
#include <gtest/gtest.h>

#include <chrono>
#include <string>
#include <thread>

#include "kernels/hls/stream.h"
#include "kernels/hls/task.h"

namespace flexllm::kernels {
namespace {

using simulation::Error;
using simulation::Mode;
using simulation::Scope;
using ::testing::Test;

constexpr double kShortStall = 0.3;

void count_up(int count, Stream<int>& out) {
  for (int i = 0; i < count; ++i) out.write(i);
}

void add_pairs(int count, Stream<int>& first, Stream<int>& second, Stream<int>& out) {
  for (int i = 0; i < count; ++i) {
    const int a = first.read();
    out.write(a + second.read());
  }
}

void add_up(int count, Stream<int>& in, long& sum) {
  sum = 0;
  for (int i = 0; i < count; ++i) sum += in.read();
}

// Wants one whole stream before the other.
void read_one_then_other(int count, Stream<int>& first, Stream<int>& second, long& sum) {
  sum = 0;
  for (int i = 0; i < count; ++i) sum += first.read();
  for (int i = 0; i < count; ++i) sum += second.read();
}

void write_both(int count, Stream<int>& first, Stream<int>& second) {
  for (int i = 0; i < count; ++i) {
    second.write(i);
    first.write(i);
  }
}

long sum_of_pairs(int count) {
  long sum = -1;
  HLS_DATAFLOW("sum_of_pairs");
  Fifo<int, 1> first("first");
  Fifo<int, 3> second("second");
  Fifo<int, 2> pairs("pairs");
  HLS_TASK(count_up(count, first));
  HLS_TASK(count_up(count, second));
  HLS_TASK(add_pairs(count, first, second, pairs));
  HLS_TASK(add_up(count, pairs, sum));
  HLS_DATAFLOW_END();
  return sum;
}

long too_shallow(int count) {
  long sum = -1;
  HLS_DATAFLOW("too_shallow");
  Fifo<int, 4> first("first");
  Fifo<int, 4> second("second");
  HLS_TASK(write_both(count, first, second));
  HLS_TASK(read_one_then_other(count, first, second, sum));
  HLS_DATAFLOW_END();
  return sum;
}

void inner(int count, Stream<int>& in, Stream<int>& out) {
  HLS_DATAFLOW("inner");
  Fifo<int, 2> ones("ones");
  HLS_TASK(count_up(count, ones));
  HLS_TASK(add_pairs(count, in, ones, out));
  HLS_DATAFLOW_END();
}

long nested(int count) {
  long sum = -1;
  HLS_DATAFLOW("nested");
  Fifo<int, 2> in("in");
  Fifo<int, 2> out("out");
  HLS_TASK(count_up(count, in));
  HLS_TASK(inner(count, in, out));
  HLS_TASK(add_up(count, out, sum));
  HLS_DATAFLOW_END();
  return sum;
}

void write_slowly(int count, Stream<int>& out) {
  for (int i = 0; i < count; ++i) {
    std::this_thread::sleep_for(std::chrono::duration<double>(2 * kShortStall));
    out.write(i);
  }
}

// What `body` throws, or nothing.
template <typename Body>
std::string error_of(const Body& body) {
  try {
    body();
  } catch (const Error& error) {
    return error.what();
  }
  return {};
}

bool contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

TEST(Simulation, CarriesElementsInBothModes) {
  EXPECT_EQ(sum_of_pairs(1000), 999 * 1000);
  EXPECT_EQ(nested(500), 499 * 500);
  const Scope scope({.mode = Mode::sequential});
  EXPECT_EQ(sum_of_pairs(1000), 999 * 1000);
  EXPECT_EQ(nested(500), 499 * 500);
}

TEST(Simulation, NamesTheStuckStreamsAndTasks) {
  const Scope scope({.stall_seconds = kShortStall});
  EXPECT_EQ(too_shallow(4), 12);  // fits the declared depth
  const std::string error = error_of([] { too_shallow(6); });
  EXPECT_TRUE(contains(error, "region 'too_shallow' is stuck")) << error;
  EXPECT_TRUE(contains(error,
                       "write_both waits to write stream 'second' (4 of 4 elements, from "
                       "write_both to no task)"))
      << error;
  EXPECT_TRUE(contains(error, "read_one_then_other waits to read stream 'first' (0 of 4")) << error;
}

TEST(Simulation, SequentialModeNeedsNoDepth) {
  const Scope scope({.mode = Mode::sequential});
  EXPECT_EQ(too_shallow(100), 9900);
}

TEST(Simulation, WaitsForASlowTaskInAnotherRegion) {
  const Scope scope({.stall_seconds = kShortStall});
  long sum = -1;
  HLS_DATAFLOW("slow");
  Fifo<int, 2> in("in");
  Fifo<int, 2> out("out");
  HLS_TASK(write_slowly(2, in));
  HLS_TASK(inner(2, in, out));
  HLS_TASK(add_up(2, out, sum));
  HLS_DATAFLOW_END();
  EXPECT_EQ(sum, 2);
}

TEST(Simulation, SeesAStallAcrossNestedRegions) {
  const Scope scope({.stall_seconds = kShortStall});
  const std::string error = error_of([] {
    long sum = -1;
    HLS_DATAFLOW("outer");
    Fifo<int, 2> in("in");
    Fifo<int, 2> out("out");
    HLS_TASK(count_up(3, in));
    HLS_TASK(inner(4, in, out));
    HLS_TASK(add_up(4, out, sum));
    HLS_DATAFLOW_END();
  });
  EXPECT_TRUE(contains(error, "region 'outer' is stuck")) << error;
  EXPECT_TRUE(contains(error, "add_pairs waits to read stream 'in'")) << error;
  EXPECT_TRUE(contains(error, "add_up waits to read stream 'out'")) << error;
}

TEST(Simulation, SequentialModeNamesAStarvedReader) {
  const Scope scope({.mode = Mode::sequential});
  const std::string error = error_of([] {
    long sum = -1;
    HLS_DATAFLOW("starved");
    Fifo<int, 2> numbers("numbers");
    HLS_TASK(count_up(3, numbers));
    HLS_TASK(add_up(4, numbers, sum));
    HLS_DATAFLOW_END();
  });
  EXPECT_TRUE(contains(error, "add_up reads stream 'numbers', which is empty")) << error;
}

TEST(Simulation, RefusesLeftovers) {
  for (const Mode mode : {Mode::concurrent, Mode::sequential}) {
    const Scope scope({.mode = mode});
    const std::string error = error_of([] {
      long sum = -1;
      HLS_DATAFLOW("leaky");
      Fifo<int, 8> numbers("numbers");
      HLS_TASK(count_up(5, numbers));
      HLS_TASK(add_up(3, numbers, sum));
      HLS_DATAFLOW_END();
    });
    EXPECT_TRUE(contains(error,
                         "2 elements are left over in stream 'numbers' from count_up to "
                         "add_up"))
        << error;
  }
}

TEST(Simulation, NamesTasksOfARegionThatHasEnded) {
  for (const Mode mode : {Mode::concurrent, Mode::sequential}) {
    const Scope scope({.mode = mode});
    const std::string error = error_of([] {
      long sum = -1;
      HLS_DATAFLOW("outer");
      Fifo<int, 8> in("in");
      Fifo<int, 8> out("out");
      HLS_TASK(count_up(5, in));
      HLS_TASK(inner(5, in, out));
      HLS_TASK(add_up(3, out, sum));
      HLS_DATAFLOW_END();
    });
    EXPECT_TRUE(contains(error, "left over in stream 'out' from add_pairs to add_up")) << error;
  }
}

TEST(Simulation, RefusesASecondWriter) {
  for (const Mode mode : {Mode::concurrent, Mode::sequential}) {
    const Scope scope({.mode = mode});
    const std::string error = error_of([] {
      long sum = -1;
      HLS_DATAFLOW("crowded");
      Fifo<int, 8> numbers("numbers");
      for (int i = 0; i < 2; ++i) HLS_TASK_AT(i, count_up(2, numbers));
      HLS_TASK(add_up(4, numbers, sum));
      HLS_DATAFLOW_END();
    });
    EXPECT_TRUE(contains(error, "stream 'numbers' has a second writer")) << error;
  }
}

TEST(Simulation, PassesOnWhatATaskThrows) {
  const auto fails = [](Stream<int>& in) {
    in.read();
    throw std::runtime_error("from a task");
  };
  const auto run = [&] {
    HLS_DATAFLOW("throwing");
    Fifo<int, 1> numbers("numbers");
    HLS_TASK(count_up(100, numbers));
    HLS_TASK(fails(numbers));
    HLS_DATAFLOW_END();
  };
  EXPECT_THROW(run(), std::runtime_error);
}

}  // namespace
}  // namespace flexllm::kernels
