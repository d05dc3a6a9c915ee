// Testbenches of the modules that work on rows: norm, Hadamard, quantiser, head assembly and
// packing.
#include "kernels/modules/hadamard.h"
#include "kernels/modules/heads.h"
#include "kernels/modules/norm.h"
#include "kernels/modules/quantize.h"
#include "kernels/tests/module_bench.h"

namespace flexllm::kernels {
namespace {

TEST(Normalize, EqualsTheContractForEverySize) {
  std::mt19937 random(1);
  for (const uint32_t size : kOddSizes) {
    SCOPED_TRACE(size);
    Fifo<Word, 1> gains("gains");
    Fifo<Word, 1> in("in");
    Fifo<Word, 1> out("out");
    const Floats gain = random_floats(random, size);
    const std::vector<Floats> rows = {random_floats(random, size), Floats(size, 0.0f),
                                      random_floats(random, size)};
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
  const Floats row = random_floats(random, 68);
  send_row(row, in);
  normalize<256>(1, 68, false, 1e-5f, gains, in, out);
  expect_same_bits(row, receive_row(68, out));
}

Floats reference_hadamard(Floats y, uint32_t block, float scale) {
  for (size_t begin = 0; begin < y.size(); begin += block) {
    for (uint32_t h = 1; h < block; h *= 2) {
      for (uint32_t i = 0; i < block; ++i) {
        if ((i & h) != 0) continue;
        const float a = y[begin + i];
        const float b = y[begin + i + h];
        y[begin + i] = a + b;
        y[begin + i + h] = a - b;
      }
    }
  }
  for (float& value : y) value = value * scale;
  return y;
}

TEST(TransformBlocks, EqualsTheContractForEveryBlock) {
  std::mt19937 random(3);
  for (const uint32_t size : {4u, 172u, 192u, 512u, 1536u, 2560u}) {
    for (uint32_t block = 1; block <= kMaxHadamardBlock && size % block == 0; block *= 2) {
      SCOPED_TRACE(std::to_string(size) + " in blocks of " + std::to_string(block));
      Fifo<Word, 1> in("in");
      Fifo<Word, 1> out("out");
      const std::vector<Floats> rows = {random_floats(random, size), random_floats(random, size)};
      for (const Floats& row : rows) send_row(row, in);
      transform_blocks<kMaxHadamardBlock>(2, size, block, 0.0625f, in, out);
      for (const Floats& row : rows) {
        expect_same_bits(reference_hadamard(row, block, 0.0625f), receive_row(size, out));
      }
    }
  }
}

TEST(TransformBlocks, PassesRowsThroughWithoutABlock) {
  std::mt19937 random(4);
  Fifo<Word, 1> in("in");
  Fifo<Word, 1> out("out");
  const Floats row = random_floats(random, 172);
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
      Floats with_nan = random_floats(random, size);
      with_nan[size / 2] = std::numeric_limits<float>::quiet_NaN();
      const std::vector<Floats> rows = {random_floats(random, size), Floats(size, -0.0f),
                                        Floats(size, 3.25f), with_nan};
      for (const Floats& row : rows) send_row(row, in);
      quantize_rows<256>(4, size, levels, in, scales, out);
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

struct HeadShape {
  static constexpr uint32_t rows = 20;
  static constexpr uint32_t heads = 6;
  static constexpr uint32_t kv_heads = 4;
  static constexpr uint32_t head_dim = 64;
  static constexpr uint32_t weight_ports = 3;
  static constexpr uint32_t arrays = 3;
};

// Tiles of a matrix with `outputs` rows in the order in which the arrays deliver them: output o of
// row r is 1000 r + o; padding is -1.
void send_tiles(const Stage& stage, Stream<TileValues>& out) {
  for (uint32_t pass = 0; pass * HeadShape::arrays < stage.tiles; ++pass) {
    for (uint32_t block = 0; block < stage.blocks(); ++block) {
      for (uint32_t port = 0; port < HeadShape::arrays; ++port) {
        const uint32_t tile = pass * HeadShape::arrays + port;
        if (tile >= stage.tiles) continue;
        for (uint32_t i = 0; i < stage.rows_of_block(block); ++i) {
          TileValues values;
          for (uint32_t r = 0; r < kTileRows; ++r) {
            const uint32_t output = tile * kTileRows + r;
            values.value[r] = output < stage.outputs
                                  ? static_cast<float>(1000 * (block * kBlockRows + i) + output)
                                  : -1.0f;
          }
          out.write(values);
        }
      }
    }
  }
}

TEST(AssembleHeads, CutsEveryRowIntoItsHeads) {
  for (const uint32_t head_dim : {8u, 16u, 24u, 40u, 64u}) {
    SCOPED_TRACE(head_dim);
    const uint32_t heads = 14;
    Stage stage = {};
    stage.kind = kQkv;
    stage.rows = 19;  // a full block and a part of one
    stage.outputs = heads * head_dim;
    stage.tiles = row_tiles(stage.outputs);
    Fifo<TileValues, 1> tiles("tiles");
    Fifo<HeadTag, 1> tags("tags");
    Fifo<Word, 1> words("words");
    send_tiles(stage, tiles);
    assemble_heads<HeadShape>(stage, head_dim, tiles, tags, words);
    std::vector<uint32_t> next(stage.rows, 0);
    for (uint32_t i = 0; i < heads * stage.rows; ++i) {
      const HeadTag tag = tags.read();
      ASSERT_EQ(tag.head, next[tag.row]++) << "heads of a row ascend";
      const Floats x = receive_row(head_dim, words);
      for (uint32_t e = 0; e < head_dim; ++e) {
        ASSERT_EQ(x[e], static_cast<float>(1000 * tag.row + tag.head * head_dim + e));
      }
    }
    EXPECT_TRUE(words.empty());
  }
}

TEST(PackQueries, PutsHeadsSideBySide) {
  for (const uint32_t head_dim : {8u, 16u, 24u, 40u, 64u}) {
    SCOPED_TRACE(head_dim);
    ModelInfo info = {};
    info.heads = 5;
    info.head_dim = head_dim;
    Stage stage = {};
    stage.kind = kQkv;
    stage.rows = 3;
    stage.result = 100;
    Fifo<HeadTag, 1> tags("tags");
    Fifo<Word, 1> words("words");
    Fifo<Store, 1> stores("stores");
    for (uint32_t head = 0; head < info.heads; ++head) {
      for (uint32_t row = 0; row < stage.rows; ++row) {  // rows in turn, as tiles deliver them
        tags.write(HeadTag{row, head});
        Floats x(head_dim);
        for (uint32_t e = 0; e < head_dim; ++e) {
          x[e] = static_cast<float>(1000 * row + head * head_dim + e);
        }
        send_row(x, words);
      }
    }
    pack_queries<HeadShape>(stage, info, tags, words, stores);
    const uint32_t row_words = float_words(info.attention());
    std::vector<uint32_t> written(stage.rows * row_words, 0);
    for (Store store = stores.read(); !store.last; store = stores.read()) {
      const uint32_t at = store.address - stage.result;
      ASSERT_LT(at, written.size());
      ++written[at];
      for (uint32_t lane = 0; lane < kFloatsPerWord; ++lane) {
        const uint32_t element = at % row_words * kFloatsPerWord + lane;
        const float expected = element < info.attention()
                                   ? static_cast<float>(1000 * (at / row_words) + element)
                                   : 0.0f;
        ASSERT_EQ(get_float(store.data, lane), expected);
      }
    }
    for (const uint32_t count : written) EXPECT_EQ(count, 1u);
  }
}

}  // namespace
}  // namespace flexllm::kernels
