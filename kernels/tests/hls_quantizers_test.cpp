// Testbenches of the library's quantisers, dequantisers and row softmax against plain loops, at
// random shapes.
#include "kernels/modules/softmax_rows.h"
#include "kernels/testbench/plain_quantizers.h"
#include "kernels/tests/module_bench.h"
#include "kernels/tests/module_time.h"

namespace flexllm::kernels {
namespace {

using Rows = std::vector<Floats>;

Rows random_rows(std::mt19937& random, uint32_t rows, uint32_t size) {
  Rows x;
  for (uint32_t r = 0; r < rows; ++r) x.push_back(random_row(random, size));
  x[0].assign(size, 0.0f);
  x[rows - 1][size / 2] = std::numeric_limits<float>::quiet_NaN();
  return x;
}

// The vector of numbers that share the scale of each element, by `same`.
template <typename Plain, typename Same>
std::vector<std::vector<Plain>> plain_scales(const Rows& x, const Same& same) {
  std::vector<std::vector<Plain>> scales(x.size());
  for (uint32_t r = 0; r < x.size(); ++r) {
    for (uint32_t i = 0; i < x[r].size(); ++i) {
      Floats vector;
      for (uint32_t s = 0; s < x.size(); ++s) {
        for (uint32_t j = 0; j < x[s].size(); ++j) {
          if (same(r, i, s, j)) vector.push_back(x[s][j]);
        }
      }
      scales[r].push_back(Plain(vector));
    }
  }
  return scales;
}

// Numbers equal those of plain loops, and dequantised again their values; rows stay in words.
template <bool IsSymmetric, typename Plain, typename Dequantize>
void expect_numbers(const Rows& x, const std::vector<std::vector<Plain>>& scales,
                    Stream<Word>& numbers, const Dequantize& dequantize) {
  const auto size = static_cast<uint32_t>(x[0].size());
  Fifo<Word, 1> again("again");
  for (uint32_t r = 0; r < x.size(); ++r) {
    for (uint32_t begin = 0; begin < size; begin += kBytesPerWord) {
      const Word word = numbers.read();
      again.write(word);
      for (uint32_t b = 0; b < kBytesPerWord; ++b) {
        const int q = IsSymmetric ? get_signed_byte(word, b) : static_cast<int>(get_byte(word, b));
        const uint32_t i = begin + b;
        ASSERT_EQ(q, i < size ? scales[r][i].encode(x[r][i]) : 0) << "row " << r << ", " << i;
      }
    }
  }
  EXPECT_TRUE(numbers.empty());
  Fifo<Word, 1> back("back");
  dequantize(again, back);
  for (uint32_t r = 0; r < x.size(); ++r) {
    Floats expected(size);
    for (uint32_t i = 0; i < size; ++i) {
      expected[i] = scales[r][i].decode(scales[r][i].encode(x[r][i]));
    }
    expect_same_bits(expected, receive_row(size, back));
  }
  EXPECT_TRUE(back.empty());
}

template <typename Scheme, uint32_t Bits, bool IsSymmetric, typename Same>
void check_scope(std::mt19937& random, const ScaleScope& scope, const Same& same) {
  typedef PlainScheme<Bits, IsSymmetric> Plain;
  const Rows x = random_rows(random, scope.rows, scope.size);
  const auto scales = plain_scales<Plain>(x, same);
  Fifo<Word, 1> in("in");
  Fifo<Word, 1> in_again("in_again");
  Fifo<AsymmetricScale, 1> found("found");
  Fifo<AsymmetricScale, 1> given("given");
  Fifo<AsymmetricScale, 1> to_decode("to_decode");
  Fifo<Word, 1> out("out");
  Fifo<Word, 1> out_static("out_static");
  for (const Floats& row : x) send_row(row, in);
  for (const Floats& row : x) send_row(row, in_again);
  quantize_spans<Scheme, 1024>(scope, in, found, out);
  for (uint32_t i = 0; i < scope.scales(); ++i) {
    const AsymmetricScale s = found.read();
    given.write(s);
    to_decode.write(s);
  }
  EXPECT_TRUE(found.empty());
  round_spans<Scheme>(scope, given, in_again, out_static);
  Fifo<Word, 1> copy("copy");
  while (!out.empty()) {
    const Word word = out.read();
    const Word by_given = out_static.read();
    for (uint32_t lane = 0; lane < kFieldsPerWord; ++lane) {
      ASSERT_EQ(get_lane(word, lane), get_lane(by_given, lane));
    }
    copy.write(word);
  }
  expect_numbers<IsSymmetric>(x, scales, copy, [&](Stream<Word>& numbers, Stream<Word>& back) {
    dequantize_spans<Scheme>(scope, to_decode, numbers, back);
  });
}

constexpr uint32_t kMaxChannels = 272;

template <typename Scheme, uint32_t Bits, bool IsSymmetric>
void check_channels(std::mt19937& random, uint32_t rows, uint32_t size) {
  typedef PlainScheme<Bits, IsSymmetric> Plain;
  const Rows x = random_rows(random, rows, size);
  const auto scales =
      plain_scales<Plain>(x, [](uint32_t, uint32_t i, uint32_t, uint32_t j) { return i == j; });
  Fifo<Word, 1> in("in");
  Fifo<AsymmetricScale, 1> found("found");
  Fifo<Word, 1> out("out");
  for (const Floats& row : x) send_row(row, in);
  quantize_channels<Scheme, 4, kMaxChannels>(rows, size, in, found, out);
  expect_numbers<IsSymmetric>(x, scales, out, [&](Stream<Word>& numbers, Stream<Word>& back) {
    dequantize_channels<Scheme, kMaxChannels>(rows, size, found, numbers, back);
  });
  EXPECT_TRUE(found.empty());
}

template <typename Scheme, uint32_t Bits, bool IsSymmetric>
void check_scheme(uint32_t seed) {
  std::mt19937 random(seed);
  for (uint32_t trial = 0; trial < 6; ++trial) {
    const uint32_t rows = 1 + static_cast<uint32_t>(random()) % 4;
    const uint32_t size = 1 + static_cast<uint32_t>(random()) % 220;
    const uint32_t span = 16 * (1 + static_cast<uint32_t>(random()) % 5);
    SCOPED_TRACE(std::to_string(rows) + " x " + std::to_string(size) + ", span " +
                 std::to_string(span));
    check_scope<Scheme, Bits, IsSymmetric>(
        random, ScaleScope::per_tensor(rows, size),
        [](uint32_t, uint32_t, uint32_t, uint32_t) { return true; });
    check_scope<Scheme, Bits, IsSymmetric>(
        random, ScaleScope::per_token(rows, size),
        [](uint32_t r, uint32_t, uint32_t s, uint32_t) { return r == s; });
    check_scope<Scheme, Bits, IsSymmetric>(random, ScaleScope::per_span(rows, size, span),
                                           [span](uint32_t r, uint32_t i, uint32_t s, uint32_t j) {
                                             return r == s && i / span == j / span;
                                           });
    check_channels<Scheme, Bits, IsSymmetric>(random, rows, 49 + size);
  }
}

TEST(Quantizers, SymmetricOf8Bits) { check_scheme<Symmetric<8>, 8, true>(1); }
TEST(Quantizers, SymmetricOf4Bits) { check_scheme<Symmetric<4>, 4, true>(2); }
TEST(Quantizers, AsymmetricOf8Bits) { check_scheme<Asymmetric<8>, 8, false>(3); }
TEST(Quantizers, AsymmetricOf4Bits) { check_scheme<Asymmetric<4>, 4, false>(4); }

TEST(SoftmaxRows, EqualsTheFormulaInFloatsAndInIntegers) {
  std::mt19937 random(5);
  for (const uint32_t size : kOddSizes) {
    SCOPED_TRACE(size);
    Rows x;
    for (uint32_t r = 0; r < 3; ++r) x.push_back(random_row(random, size));
    Fifo<Word, 1> in("in");
    Fifo<Word, 1> in_again("in_again");
    Fifo<Word, 1> out("out");
    Fifo<Word, 1> counted("counted");
    Fifo<Accumulator, 1> sums("sums");
    for (const Floats& row : x) send_row(row, in);
    for (const Floats& row : x) send_row(row, in_again);
    softmax_rows<256, 4>(3, size, in, out);
    softmax_levels<256, 2>(3, size, 255, in_again, counted, sums);
    for (const Floats& row : x) {
      float largest = -kInfinity;
      for (const float v : row) largest = max_of(v, largest);
      const float inverse =
          1.0f / vector_sum(size, [&](uint32_t i) { return exp_nonpositive(row[i] - largest); });
      const Floats softmax = receive_row(size, out);
      int64_t sum = 0;
      for (uint32_t begin = 0; begin < size; begin += kFloatsPerWord) {
        const Word levels = counted.read();
        for (uint32_t lane = 0; lane < kFloatsPerWord; ++lane) {
          const uint32_t i = begin + lane;
          if (i >= size) {
            ASSERT_EQ(get_lane(levels, lane), 0u);
            continue;
          }
          const float e = exp_nonpositive(row[i] - largest);
          ASSERT_EQ(bits_of(softmax[i]), bits_of(e * inverse));
          ASSERT_EQ(get_lane(levels, lane), static_cast<uint32_t>(round_even(e * 255.0f)));
          sum += get_lane(levels, lane);
        }
      }
      EXPECT_EQ(static_cast<int64_t>(sums.read()), sum);
    }
  }
}

#if !FLEXLLM_HLS_TYPES

TEST(QuantizerTime, SpansTakeAWordACycle) {
  Fifo<Word, 1> in("in");
  Fifo<AsymmetricScale, 1> scales("scales");
  Fifo<Word, 1> out("out");
  const ScaleScope scope = ScaleScope::per_span(4, 1024, 64);
  for (uint32_t r = 0; r < scope.rows; ++r) send_row(Floats(1024, 1.0f), in);
  const uint64_t cycles =
      timed_cycles([&] { quantize_spans<Symmetric<8>, 64>(scope, in, scales, out); });
  EXPECT_LT(cycles, 4 * 64u + 4 + kScaleDelay + 20 + kRegionCycles);
}

TEST(SoftmaxTime, OneRowIsSummedWhileTheNextIsExponentiated) {
  Fifo<Word, 1> in("in");
  Fifo<Word, 1> out("out");
  for (uint32_t r = 0; r < 6; ++r) send_row(Floats(1024, 1.0f), in);
  const uint64_t cycles = timed_cycles([&] { softmax_rows<1024, 8>(6, 1024, in, out); });
  EXPECT_LT(cycles, 6 * 128u + 2 * 64u + 250);
}

#endif

}  // namespace
}  // namespace flexllm::kernels
