// Testbenches of the modules that work on rows: norm, Hadamard, quantiser, and the stores behind a
// matrix.
#include "kernels/modules/hadamard.h"
#include "kernels/modules/norm.h"
#include "kernels/modules/quantize.h"
#include "kernels/modules/rows.h"
#include "kernels/modules/stores.h"
#include "kernels/tests/module_bench.h"
#include "kernels/tests/module_time.h"

namespace flexllm::kernels {
namespace {

TEST(Normalize, EqualsTheContractForEverySize) {
  std::mt19937 random(1);
  for (const uint32_t size : kOddSizes) {
    SCOPED_TRACE(size);
    Fifo<Word, 1> gains("gains");
    Fifo<Word, 1> in("in");
    Fifo<Word, 1> out("out");
    const Floats gain = random_row(random, size);
    const std::vector<Floats> rows = {random_row(random, size), Floats(size, 0.0f),
                                      random_row(random, size)};
    send_row(gain, gains);
    for (const Floats& row : rows) send_row(row, in);
    normalize<256>(3, size, true, 1e-5f, gains, in, out);
    for (const Floats& row : rows) {
      expect_same_bits(reference_norm(row, gain, 1e-5f), receive_row(size, out));
    }
    EXPECT_TRUE(out.empty());
  }
}

TEST(Normalize, PassesRowsThroughWhenDisabled) {
  std::mt19937 random(2);
  Fifo<Word, 1> gains("gains");
  Fifo<Word, 1> in("in");
  Fifo<Word, 1> out("out");
  const Floats row = random_row(random, 68);
  send_row(row, in);
  normalize<256>(1, 68, false, 1e-5f, gains, in, out);
  expect_same_bits(row, receive_row(68, out));
}

TEST(TransformBlocks, EqualsTheContractForEveryBlock) {
  std::mt19937 random(3);
  for (const uint32_t size : {4u, 172u, 192u, 512u, 1536u, 2560u}) {
    for (uint32_t block = 1; block <= kMaxHadamardBlock && size % block == 0; block *= 2) {
      SCOPED_TRACE(std::to_string(size) + " in blocks of " + std::to_string(block));
      Fifo<Word, 1> in("in");
      Fifo<Word, 1> out("out");
      const std::vector<Floats> rows = {random_row(random, size), random_row(random, size)};
      for (const Floats& row : rows) send_row(row, in);
      transform_blocks<kMaxHadamardBlock>(2, size, block, 0.0625f, in, out);
      for (const Floats& row : rows) {
        expect_same_bits(reference_hadamard(row, block, 0.0625f), receive_row(size, out));
      }
    }
  }
}

template <uint32_t MaxBlock, uint32_t Interval>
void transform_in_one_block(std::mt19937& random, uint32_t block) {
  SCOPED_TRACE(std::to_string(block) + " of " + std::to_string(MaxBlock));
  Fifo<Word, 1> in("in");
  Fifo<Word, 1> out("out");
  const std::vector<Floats> rows = {random_row(random, block), random_row(random, block)};
  for (const Floats& row : rows) send_row(row, in);
  transform_blocks<MaxBlock, Interval>(2, block, block, 0.25f, in, out);
  for (const Floats& row : rows) {
    expect_same_bits(reference_hadamard(row, block, 0.25f), receive_row(block, out));
  }
  EXPECT_TRUE(out.empty());
}

TEST(TransformBlocks, TakesAnyPowerOfTwo) {
  std::mt19937 random(6);
  transform_in_one_block<8192, 1>(random, 8192);
  transform_in_one_block<8192, 2>(random, 4096);
  transform_in_one_block<1024, 4>(random, 1024);
  transform_in_one_block<32, 1>(random, 32);
  transform_in_one_block<16, 1>(random, 16);
}

TEST(TransformBlocks, PassesRowsThroughWithoutABlock) {
  std::mt19937 random(4);
  Fifo<Word, 1> in("in");
  Fifo<Word, 1> out("out");
  const Floats row = random_row(random, 172);
  send_row(row, in);
  transform_blocks<kMaxHadamardBlock>(1, 172, 0, 0.5f, in, out);
  expect_same_bits(row, receive_row(172, out));
}

TEST(QuantizeRows, EqualsTheContractForEverySize) {
  std::mt19937 random(5);
  for (const uint32_t levels : {15u, 255u}) {
    for (const uint32_t size : kOddSizes) {
      SCOPED_TRACE(std::to_string(size) + " to " + std::to_string(levels));
      Fifo<Word, 1> in("in");
      Fifo<AsymmetricScale, 1> scales("scales");
      Fifo<Word, 1> out("out");
      Floats with_nan = random_row(random, size);
      with_nan[size / 2] = std::numeric_limits<float>::quiet_NaN();
      const std::vector<Floats> rows = {random_row(random, size), Floats(size, -0.0f),
                                        Floats(size, 3.25f), with_nan};
      for (const Floats& row : rows) send_row(row, in);
      quantize_rows<256>(4, size, ActivationGrid{levels, 0, false}, in, scales, out);
      for (const Floats& row : rows) {
        float lowest = kInfinity;
        float highest = -kInfinity;
        for (const float x : row) {
          if (x < lowest) lowest = x;
          if (x > highest) highest = x;
        }
        const float step = (highest - lowest) / static_cast<float>(levels);
        const float scale = step > 0.0f ? step : 1.0f;
        const AsymmetricScale s = scales.read();
        ASSERT_EQ(bits_of(s.scale), bits_of(scale));
        ASSERT_EQ(bits_of(s.zero), bits_of(lowest + 0.0f));
        for (uint32_t begin = 0; begin < size; begin += kBytesPerWord) {
          const Word word = out.read();
          for (uint32_t i = 0; i < kBytesPerWord; ++i) {
            const uint32_t q = get_byte(word, i);
            if (begin + i >= size) {
              ASSERT_EQ(q, 0u);
              continue;
            }
            const float exact = (row[begin + i] - s.zero) * (1.0f / scale);
            if (exact != exact) {
              ASSERT_EQ(q, 0u);
            } else {
              ASSERT_LE(q, levels);
              ASSERT_NEAR(static_cast<double>(q), static_cast<double>(exact), 0.5);
            }
          }
        }
      }
      EXPECT_TRUE(out.empty());
    }
  }
}

// Tiles of `outputs` outputs in the order in which arrays deliver them; element i of a row is
// value(row, i), padding -1.
template <typename K, typename Value>
void send_tiles(const Stage& stage, uint32_t outputs, const Value& value, Stream<TileValues>& out) {
  TileOrder at = TileOrder::first();
  for (uint32_t i = 0; i < stage.tiles * stage.rows; ++i) {
    TileValues tile;
    for (uint32_t r = 0; r < kTileRows; ++r) {
      const uint32_t output = at.tile * kTileRows + r;
      tile.value[r] = output < outputs ? value(at.row, output) : -1.0f;
    }
    out.write(tile);
    at.advance<K>(stage);
  }
}

struct GateShape {
  static constexpr uint32_t rows = 40;
  static constexpr uint32_t panel_rows = 16;
  static constexpr uint32_t ffn = 256;
  static constexpr uint32_t hidden = 256;
  static constexpr uint32_t arrays = 3;
};

template <uint32_t Lanes>
void gate_rows(uint32_t size) {
  SCOPED_TRACE(std::to_string(size) + " outputs, " + std::to_string(Lanes) + " lanes");
  std::mt19937 random(size);
  Stage stage = {};
  stage.kind = kGateUp;
  stage.rows = 35;
  stage.outputs = size;
  stage.tiles = gate_up_tiles(size);
  stage.result = 7;
  std::vector<Floats> gates;
  std::vector<Floats> ups;
  for (uint32_t row = 0; row < stage.rows; ++row) {
    gates.push_back(random_row(random, size));
    ups.push_back(random_row(random, size));
  }
  Fifo<TileValues, 1> tiles("tiles");
  Fifo<Store, 1> stores("stores");
  send_tiles<GateShape>(
      stage, kTileRows * stage.tiles,
      [&](uint32_t row, uint32_t output) {
        const uint32_t i = output / (2 * kTileRows) * kTileRows + output % kTileRows;
        if (i >= size) return 0.0f;
        return output / kTileRows % 2 == 0 ? gates[row][i] : ups[row][i];
      },
      tiles);
  gate_with_silu<GateShape, Lanes>(stage, tiles, stores);
  uint32_t words = 0;
  for (Store store = stores.read(); !store.last; store = stores.read(), ++words) {
    const uint32_t row = (store.address - 7) / float_words(size);
    const uint32_t begin = (store.address - 7) % float_words(size) * kFloatsPerWord;
    ASSERT_LT(row, stage.rows);
    for (uint32_t lane = 0; lane < kFloatsPerWord && begin + lane < size; ++lane) {
      const float y = reference_gate(gates[row][begin + lane], ups[row][begin + lane]);
      ASSERT_EQ(bits_of(get_float(store.data, lane)), bits_of(y));
    }
  }
  EXPECT_EQ(words, stage.rows * float_words(size));
}

TEST(GateWithSilu, EqualsTheFormulaWithAnyLanes) {
  for (const uint32_t size : {4u, 36u, 64u, 180u}) {
    gate_rows<1>(size);
    gate_rows<4>(size);
    gate_rows<16>(size);
  }
}

// Reads rows of 36 inputs, the last first, and residuals to add.
TEST(AddResidual, AddsTheWordsThatAreThere) {
  Stage stage = {};
  stage.kind = kDown;
  stage.rows = 37;
  stage.inputs = 36;
  stage.outputs = 68;
  stage.tiles = row_tiles(68);
  stage.input = stage.rows * float_words(68);
  Fifo<uint32_t, 1> rows("rows");
  Fifo<Word, 1> inputs("inputs");
  Fifo<TileValues, 1> tiles("tiles");
  Fifo<Word, 1> residuals("residuals");
  Fifo<Store, 1> stores("stores");
  std::vector<Word> scratch(stage.rows * (float_words(68) + float_words(36)));
  for (uint32_t i = 0; i < scratch.size() * kFloatsPerWord; ++i) {
    set_float(scratch[i / kFloatsPerWord], i % kFloatsPerWord, static_cast<float>(i));
  }
  send_tiles<GateShape>(
      stage, 68, [](uint32_t row, uint32_t i) { return static_cast<float>(1000 * row + i); },
      tiles);
  for (uint32_t i = 0; i < stage.rows; ++i) rows.write(stage.rows - 1 - i);
  read_listed<GateShape>(scratch.data(), stage, rows, inputs, residuals);
  for (uint32_t i = 0; i < stage.rows; ++i) {
    for (uint32_t w = 0; w < float_words(36); ++w) {
      const uint32_t at = stage.input + (stage.rows - 1 - i) * float_words(36) + w;
      ASSERT_EQ(get_float(inputs.read(), 0), get_float(scratch[at], 0));
    }
  }
  EXPECT_TRUE(inputs.empty() && rows.empty());
  add_residual<GateShape>(stage, tiles, residuals, stores);
  std::vector<uint32_t> written(stage.rows * float_words(68), 0);
  for (Store store = stores.read(); !store.last; store = stores.read()) {
    ++written[store.address];
    const uint32_t row = store.address / float_words(68);
    for (uint32_t lane = 0; lane < kFloatsPerWord; ++lane) {
      const uint32_t i = store.address % float_words(68) * kFloatsPerWord + lane;
      if (i >= 68) continue;
      ASSERT_EQ(get_float(store.data, lane),
                static_cast<float>(1000 * row + i) +
                    static_cast<float>(store.address * kFloatsPerWord + lane));
    }
  }
  for (const uint32_t count : written) EXPECT_EQ(count, 1u);
  EXPECT_TRUE(residuals.empty());
}

#if !FLEXLLM_HLS_TYPES

TEST(RowTime, HadamardTakesAWordACycle) {
  Fifo<Word, 1> in("in");
  Fifo<Word, 1> out("out");
  for (uint32_t row = 0; row < 3; ++row) send_row(Floats(2560, 1.0f), in);
  const uint64_t cycles = timed_cycles([&] {
    HLS_DATAFLOW("bench");
    HLS_TASK(transform_blocks<kMaxHadamardBlock>(3, 2560, 512, 1.0f, in, out));
    HLS_DATAFLOW_END();
  });
  EXPECT_EQ(cycles, kRegionCycles + 3 * 160 + 31);
}

TEST(RowTime, NormSumsARowWhileItScalesTheOneBefore) {
  Fifo<Word, 1> gains("gains");
  Fifo<Word, 1> in("in");
  Fifo<Word, 1> out("out");
  send_row(Floats(2048, 1.0f), gains);
  for (uint32_t row = 0; row < 6; ++row) send_row(Floats(2048, 1.0f), in);
  const uint64_t cycles =
      timed_cycles([&] { normalize<2048>(6, 2048, true, 1e-5f, gains, in, out); });
  EXPECT_GE(cycles, 7 * 256u);
  EXPECT_LT(cycles, 7 * 256u + 120 + kRegionCycles);
}

TEST(RowTime, QuantiserTakesAWordACycle) {
  Fifo<Word, 1> in("in");
  Fifo<AsymmetricScale, 1> scales("scales");
  Fifo<Word, 1> out("out");
  for (uint32_t row = 0; row < 6; ++row) send_row(Floats(2048, 1.0f), in);
  const uint64_t cycles = timed_cycles([&] {
    quantize_rows<2048>(6, 2048, ActivationGrid{15, 38, true}, in, scales, out);
  });
  EXPECT_GE(cycles, 7 * 128u);
  EXPECT_LT(cycles, 7 * 128u + kRangeDelay + 20 + kRegionCycles);
}

TEST(RowTime, GateTakesAStepForEachOfItsLanes) {
  Stage stage = {};
  stage.kind = kGateUp;
  stage.rows = 5;
  stage.outputs = 128;
  stage.tiles = gate_up_tiles(128);
  Fifo<TileValues, 1> tiles("tiles");
  Fifo<Store, 1> stores("stores");
  for (uint32_t i = 0; i < stage.tiles * stage.rows; ++i) tiles.write(TileValues{});
  const uint64_t cycles = timed_cycles([&] {
    HLS_DATAFLOW("bench");
    HLS_TASK(gate_with_silu<GateShape, 4>(stage, tiles, stores));
    HLS_DATAFLOW_END();
  });
  EXPECT_EQ(cycles, kRegionCycles + 4 * 5 * (1 + 8));
}

#endif

}  // namespace
}  // namespace flexllm::kernels
