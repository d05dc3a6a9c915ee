// What the modules' testbenches share, those for Vitis and kernels/tests/: random rows, rows as
// words of streams, and the count of differences that main() returns. C++14, plain types and AMD's.
#pragma once

#include <cstdio>
#include <random>
#include <vector>

#include "kernels/modules/types.h"
#include "kernels/testbench/ports.h"

namespace flexllm {
namespace kernels {

typedef std::vector<float> Floats;

inline Floats random_row(std::mt19937& random, size_t size) {
  Floats row(size);
  for (float& x : row) {
    x = static_cast<float>(static_cast<int32_t>(random() % 20001) - 10000) / 2500.0f;
  }
  return row;
}

// Lanes behind the end of the row hold noise, which no module may use.
inline void send_row(const Floats& row, Stream<Word>& out) {
  for (size_t begin = 0; begin < row.size(); begin += kFloatsPerWord) {
    Word word = zero_word();
    for (uint32_t lane = 0; lane < kFloatsPerWord; ++lane) {
      set_float(word, lane, begin + lane < row.size() ? row[begin + lane] : 1e30f);
    }
    out.write(word);
  }
}

inline Floats receive_row(size_t size, Stream<Word>& in) {
  Floats row;
  while (row.size() < size) {
    const Word word = in.read();
    for (uint32_t lane = 0; lane < kFloatsPerWord && row.size() < size; ++lane) {
      row.push_back(get_float(word, lane));
    }
  }
  return row;
}

// Counts what differs, and says the first few.
class Differences {
 public:
  void compare_bits(const char* what, uint32_t size, size_t at, uint32_t expected,
                    uint32_t actual) {
    ++compared_;
    if (expected == actual) return;
    if (++count_ <= 10) {
      std::printf("size %u: %s %u is %08x, expected %08x\n", size, what, static_cast<uint32_t>(at),
                  actual, expected);
    }
  }
  void compare_rows(const Floats& expected, const Floats& actual) {
    const auto size = static_cast<uint32_t>(expected.size());
    for (size_t i = 0; i < expected.size(); ++i) {
      compare_bits("element", size, i, bits_of(expected[i]), bits_of(actual[i]));
    }
  }
  // A word, lane by lane.
  void compare_words(const char* what, size_t at, const Word& expected, const Word& actual) {
    for (uint32_t lane = 0; lane < kFieldsPerWord; ++lane) {
      compare_bits(what, static_cast<uint32_t>(at), lane, get_lane(expected, lane),
                   get_lane(actual, lane));
    }
  }
  void expect_empty(const char* stream, bool empty) {
    if (empty) return;
    ++count_;
    std::printf("stream '%s' holds more than it should\n", stream);
  }
  // The exit status: 0 if something was compared and nothing differed, as csim and cosim want it.
  int status() const {
    std::printf("%u numbers compared, %u differences\n", compared_, count_);
    return compared_ > 0 && count_ == 0 ? 0 : 1;
  }

 private:
  uint32_t compared_ = 0;
  uint32_t count_ = 0;
};

}  // namespace kernels
}  // namespace flexllm
