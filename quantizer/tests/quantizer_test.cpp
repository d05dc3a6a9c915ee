// Rounding, schemes, and the way of every weight into its nibble.
#include <gtest/gtest.h>

#include <cmath>
#include <random>
#include <span>
#include <stdexcept>
#include <vector>

#include "quantizer/packing/arenas.h"
#include "quantizer/packing/model_buffer.h"
#include "quantizer/rounding/weights.h"
#include "quantizer/scheme.h"

namespace flexllm::quantizer {
namespace {

using kernels::kTileRows;
using kernels::kWordBytes;

std::vector<float> random_row(std::mt19937& random, size_t n) {
  std::normal_distribution<float> normal(0, 0.05f);
  std::vector<float> row(n);
  for (float& w : row) w = normal(random);
  return row;
}

double error_of(std::span<const float> weights, const QuantizedRow& row) {
  const std::vector<float> back = dequantize_row(row);
  double sum = 0;
  for (size_t i = 0; i < weights.size(); ++i) sum += std::pow(double{weights[i]} - back[i], 2);
  return std::sqrt(sum / static_cast<double>(weights.size()));
}

TEST(Scheme, NamesAreReadBack) {
  for (const char* name :
       {"w8a8kv8-lm8", "w4g64a8kv8-lm8", "w4a4kv8-lm4-p8", "w4a8kv8-lm8-p8-r4", "w4a4kv8-lm4a4-r4",
        "w4g64a4kv8-lm8-r124", "w8a8kv8-lm8-r1", "w8a8kv8-lm8-r24",
        "w4g64a8kv8-lm8-r124:0.qkv=w8a8,0-2.down=w8g64a8,7.down=w8a4"}) {
    EXPECT_EQ(Scheme::parse(name).name(), name);
  }
  EXPECT_EQ(Scheme::parse("w4a4kv8-lm4a4").lm_head.encoded(false).activation_planes, 1u);
  EXPECT_EQ(Scheme::parse("w4a4kv8-lm4").lm_head.encoded(false).activation_planes, 2u);
  const Scheme rotated = Scheme::parse("w8a8kv8-lm8-r12");
  EXPECT_TRUE(rotated.rotate_residual && rotated.rotate_values && !rotated.rotate_down);
  for (const char* name :
       {"", "w3a8kv8-lm8", "w8a8", "w8a8kv4-lm8", "w8a8kv8-lm8-r4-p8", "w8a8kv8-lm8-r",
        "w8a8kv8-lm8-r3", "w8a8kv8-lm8-r41", "w8a8kv8-lm8:", "w8a8kv8-lm8:0.down=w8a8,",
        "w8a8kv8-lm8:0.down", "w8a8kv8-lm8:0.lm_head=w4a4", "w8a8kv8-lm8:2-1.o=w4a4",
        "w8a8kv8-lm8:0-3.o=w4a4,2.o=w4a8", "w8a8kv8-lm8:9999.o=w4a4", "w8a8kv8-lm8:0.o=w4a5"}) {
    EXPECT_THROW(Scheme::parse(name), std::invalid_argument) << name;
  }
  EXPECT_THROW(Scheme::parse(std::string(70000, ' ')), std::invalid_argument);
}

TEST(Scheme, RangesOfActivationsAreClipped) {
  const Scheme scheme = Scheme::parse("w4g64a4sc85kv8-lm8-r124:3.down=w8a8c99,4.down=w8a8s");
  EXPECT_EQ(scheme.name(), "w4g64a4sc85kv8-lm8-r124:3.down=w8a8c99,4.down=w8a8s");
  EXPECT_EQ(scheme.linears.range_percent, 85u);
  EXPECT_EQ(scheme.linears.encoded(false).encode(), 0x111u | 1u << 10 | 38u << 16);
  EXPECT_EQ(scheme.of({3, MatrixKind::down}).encoded(false).encode(), 0x22u | 3u << 16);
  EXPECT_EQ(scheme.of({4, MatrixKind::down}).encoded(false).encode(), 0x22u | 1u << 10);
  EXPECT_EQ(scheme.lm_head.encoded(false).clip, 0u);
  for (const char* name : {"w4a4c0kv8-lm8", "w4a4c100kv8-lm8", "w4a4ckv8-lm8", "w4a4c85skv8-lm8"}) {
    EXPECT_THROW(Scheme::parse(name), std::invalid_argument) << name;
  }
}

TEST(Scheme, ExceptionsHaveOneForm) {
  const Scheme scheme = Scheme::parse(
      "w4a8kv8-lm8:1.down=w8a8,\n  0.down = w8a8, 2.down=w8a8,\n0.o=w4a8, 0.qkv=w4a4\n");
  EXPECT_EQ(scheme.name(), "w4a8kv8-lm8:0.qkv=w4a4,0-2.down=w8a8");
  EXPECT_EQ(scheme.label(), "w4a8kv8-lm8-mixed");
  EXPECT_EQ(Scheme::parse("w4a8kv8-lm8:0.o=w4a8").label(), "w4a8kv8-lm8");
  EXPECT_EQ(scheme.of({1, MatrixKind::down}).encoded(true).encode(), 0x222u);
  EXPECT_EQ(scheme.of({0, MatrixKind::qkv}).encoded(true).encode(), 0x211u);
  EXPECT_EQ(scheme.of({3, MatrixKind::down}).encoded(true).encode(), 0x221u);
  EXPECT_NO_THROW(scheme.check_layers(3));
  EXPECT_THROW(scheme.check_layers(2), std::invalid_argument);
}

TEST(Scheme, TheDefaultIsTheOneOfTheAccuracyPage) { EXPECT_EQ(Scheme().name(), "w8a8kv8-lm8-r4"); }

TEST(QuantizeRow, KeepsToItsRangeAndMeetsErrorBounds) {
  std::mt19937 random(1);
  for (const size_t n : {4u, 64u, 100u, 172u, 576u}) {
    const std::vector<float> row = random_row(random, n);
    const double per_channel = error_of(row, quantize_row(row, 4, false));
    const double grouped = error_of(row, quantize_row(row, 4, true));
    const double eight = error_of(row, quantize_row(row, 8, false));
    EXPECT_LT(eight, 0.001) << n;
    EXPECT_LT(per_channel, 0.016) << n;
    if (n > 64) {
      EXPECT_LT(grouped, per_channel) << n;
    }
    for (const bool groups : {false, true}) {
      for (const int8_t q : quantize_row(row, 4, groups).q) {
        EXPECT_GE(q, -8);
        EXPECT_LE(q, 7);
      }
      for (const uint8_t m : quantize_row(row, 4, groups).multipliers) {
        EXPECT_GE(m, 1);
        EXPECT_LE(m, kernels::kMaxMultiplier);
      }
    }
  }
}

TEST(QuantizeRow, ClippingHelpsAgainstAnOutlier) {
  std::mt19937 random(2);
  std::vector<float> row = random_row(random, 576);
  row[17] = 0.6f;
  const QuantizedRow clipped = quantize_row(row, 4, false);
  EXPECT_LT(clipped.scale, 0.6f / 7);
}

TEST(QuantizeRow, WeightSumIsTheContracts) {
  std::mt19937 random(3);
  const std::vector<float> row = random_row(random, 172);
  for (const bool grouped : {false, true}) {
    const QuantizedRow q = quantize_row(row, 4, grouped);
    int64_t sum = 0;
    for (size_t i = 0; i < q.q.size(); ++i) {
      sum += (grouped ? q.multipliers[i / 64] : 1) * q.q[i];
    }
    EXPECT_EQ(q.weight_sum, static_cast<float>(double{q.scale} * static_cast<double>(sum)));
  }
}

TEST(QuantizeRow, ZerosStayZeros) {
  const std::vector<float> zeros(128, 0.0f);
  for (const bool grouped : {false, true}) {
    const QuantizedRow q = quantize_row(zeros, 4, grouped);
    EXPECT_EQ(q.scale, 0.0f);
    EXPECT_EQ(q.weight_sum, 0.0f);
    for (const int8_t value : q.q) EXPECT_EQ(value, 0);
  }
}

// Reads a weight back as docs/weight-layout.md describes it.
int weight_at(const Arenas& arenas, uint32_t offset, const kernels::TileLayout& layout,
              uint32_t row, uint32_t input) {
  const uint32_t tile = row / kTileRows;
  const uint32_t line = row % kTileRows;
  const auto arena = arenas.arena(tile % arenas.streams());
  const size_t base = offset + size_t{tile / arenas.streams()} * layout.words() + layout.planes();
  int value = 0;
  for (uint32_t plane = 0; plane < layout.precision.weight_planes; ++plane) {
    const size_t word = base + size_t{plane} * layout.plane_words() + input / 4;
    const auto byte = static_cast<int>(arena[word * kWordBytes + line % 16 * 4 + input % 4]);
    value |= ((line < 16 ? byte : byte >> 4) & 15) << (4 * plane);
  }
  return value - layout.precision.weight_offset();
}

TEST(Arenas, EveryWeightHasItsNibble) {
  std::mt19937 random(4);
  for (const uint32_t bits : {4u, 8u}) {
    for (const uint32_t streams : {1u, 3u, 16u}) {
      for (const bool grouped : {false, true}) {
        const uint32_t rows = 77;
        const uint32_t inputs = 172;
        const kernels::TileLayout layout{inputs, {bits / 4, 2, grouped, true}};
        Arenas arenas(streams);
        arenas.reserve(2, layout);
        const uint32_t offset = arenas.reserve(kernels::row_tiles(rows), layout);
        std::vector<QuantizedRow> expected;
        for (uint32_t r = 0; r < rows; ++r) {
          expected.push_back(quantize_row(random_row(random, inputs), bits, grouped));
          arenas.place(offset, layout, r / kTileRows, r % kTileRows, expected.back(), 0.5f);
        }
        for (uint32_t r = 0; r < kernels::row_tiles(rows) * kTileRows; ++r) {
          for (uint32_t i = 0; i < inputs; ++i) {
            ASSERT_EQ(weight_at(arenas, offset, layout, r, i), r < rows ? expected[r].q[i] : 0)
                << "row " << r << " input " << i;
          }
        }
      }
    }
  }
}

TEST(ModelBuffer, HadamardBlockDividesTheSize) {
  EXPECT_EQ(hadamard_block(1536), 512u);
  EXPECT_EQ(hadamard_block(5632), 512u);
  EXPECT_EQ(hadamard_block(11008), 256u);
  EXPECT_EQ(hadamard_block(8192), 512u);
  EXPECT_EQ(hadamard_block(172), 4u);
}

}  // namespace
}  // namespace flexllm::quantizer
