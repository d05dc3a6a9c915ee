// Testbench of the linear layer's modules: from tiles in the arenas and quantised rows to floats.
#include "kernels/modules/activations.h"
#include "kernels/modules/dequantize.h"
#include "kernels/modules/plane_array.h"
#include "kernels/modules/weights.h"
#include "kernels/tests/module_bench.h"

namespace flexllm::kernels {
namespace {

constexpr uint32_t kInputs = 192;
constexpr uint32_t kPlaneWords = 2 * kInputs / kInputsPerWord;

struct Streaming {  // one block, a port per arena
  static constexpr uint32_t rows = 16;
  static constexpr uint32_t weight_streams = 3;
  static constexpr uint32_t weight_ports = 3;
  static constexpr uint32_t arrays = 3;
  static constexpr uint32_t hidden = kInputs;
  static constexpr uint32_t ffn = kInputs;
  static constexpr uint32_t vocab = 256;
  static constexpr uint32_t output_parallel = 8;
};
struct Sharing : Streaming {  // two arrays to a port with one arena
  static constexpr uint32_t weight_streams = 2;
  static constexpr uint32_t weight_ports = 2;
  static constexpr uint32_t arrays = 4;
  static constexpr uint32_t output_parallel = 32;
};
struct Replaying : Streaming {  // several blocks, two arenas to a port
  static constexpr uint32_t rows = 48;
  static constexpr uint32_t weight_streams = 4;
  static constexpr uint32_t weight_ports = 2;
  static constexpr uint32_t arrays = 2;
};
struct ReplayingInTurn : Replaying {  // three arrays to the only port, four arenas
  static constexpr uint32_t weight_ports = 1;
  static constexpr uint32_t arrays = 3;
  static constexpr uint32_t output_parallel = 1;
};
template <uint32_t Tokens, uint32_t Rows, uint32_t Inputs>
struct Array {
  static constexpr uint32_t token_parallel = Tokens;
  static constexpr uint32_t row_parallel = Rows;
  static constexpr uint32_t input_parallel = Inputs;
};

// A matrix as numbers, and its tiles as docs/weight-layout.md lays them out.
struct Matrix {
  Precision precision;
  uint32_t inputs;
  uint32_t outputs;
  std::vector<std::vector<int32_t>> w;
  std::vector<std::vector<uint32_t>> multiplier;
  Floats scale, weight_sum, bias;

  TileLayout layout() const { return TileLayout{inputs, precision}; }
};

Matrix random_matrix(std::mt19937& random, uint32_t outputs, uint32_t inputs, Precision precision) {
  Matrix m{precision, inputs, outputs, {}, {}, {}, {}, {}};
  const int32_t offset = precision.weight_offset();
  for (uint32_t o = 0; o < outputs; ++o) {
    std::vector<int32_t> row(inputs);
    for (int32_t& w : row) {
      w = static_cast<int32_t>(random() % static_cast<uint32_t>(2 * offset)) - offset;
    }
    if (o % 3 == 0) row.assign(inputs, -offset);  // the extremes
    if (o % 3 == 1) row.assign(inputs, offset - 1);
    m.w.push_back(row);
    std::vector<uint32_t> multipliers(divide_up(inputs, kGroupInputs), 1);
    for (uint32_t& g : multipliers) {
      if (precision.grouped) g = 1 + static_cast<uint32_t>(random() % kMaxMultiplier);
    }
    m.multiplier.push_back(multipliers);
  }
  m.scale = random_row(random, outputs);
  m.weight_sum = random_row(random, outputs);
  m.bias = random_row(random, outputs);
  return m;
}

Word tile_word(const Matrix& m, uint32_t tile, uint32_t w) {
  const TileLayout layout = m.layout();
  Word word = zero_word();
  const auto output = [&](uint32_t row) { return tile * kTileRows + row; };
  if (w < layout.multipliers()) {
    const Floats& part = w < 2 ? m.scale : w < 4 ? m.weight_sum : m.bias;
    for (uint32_t i = 0; i < kFloatsPerWord; ++i) {
      const uint32_t o = output(w % 2 * kFloatsPerWord + i);
      set_float(word, i, o < m.outputs ? part[o] : 0.0f);
    }
    return word;
  }
  if (w < layout.planes()) {
    for (uint32_t i = 0; i < kBytesPerWord; ++i) {
      const uint32_t group = 2 * (w - layout.multipliers()) + i / kTileRows;
      const uint32_t o = output(i % kTileRows);
      if (group < layout.groups()) set_byte(word, i, o < m.outputs ? m.multiplier[o][group] : 1);
    }
    return word;
  }
  const uint32_t plane = (w - layout.planes()) / layout.plane_words();
  const uint32_t k = (w - layout.planes()) % layout.plane_words();
  const auto nibble = [&](uint32_t o, uint32_t i) {
    const int32_t value = o < m.outputs ? m.w[o][i] : 0;
    return (static_cast<uint32_t>(value + m.precision.weight_offset()) >> (4 * plane)) & 15u;
  };
  for (uint32_t byte = 0; byte < kBytesPerWord; ++byte) {
    const uint32_t i = kInputsPerWord * k + byte % kInputsPerWord;
    const uint32_t row = byte / kInputsPerWord;
    set_byte(word, byte, nibble(output(row), i) | (nibble(output(row + 16), i) << 4));
  }
  return word;
}

template <typename K, typename A>
void run_case(std::mt19937& random, uint32_t rows, uint32_t outputs, uint32_t inputs,
              Precision precision) {
  const Matrix m = random_matrix(random, outputs, inputs, precision);
  const TileLayout layout = m.layout();
  Stage stage = {};
  stage.kind = kGateUp;
  stage.rows = rows;
  stage.inputs = inputs;
  stage.outputs = outputs;
  stage.tiles = row_tiles(outputs);
  stage.weights = 5;
  stage.precision = precision.encode();

  std::vector<std::vector<Word>> memory(
      K::weight_streams,
      std::vector<Word>(stage.weights + matrix_words(outputs, layout, K::weight_streams),
                        zero_word()));
  for (uint32_t t = 0; t < stage.tiles; ++t) {
    for (uint32_t w = 0; w < layout.words(); ++w) {
      memory[t % K::weight_streams][stage.weights + t / K::weight_streams * layout.words() + w] =
          tile_word(m, t, w);
    }
  }
  Arenas<K::weight_streams> arenas;
  for (uint32_t s = 0; s < K::weight_streams; ++s) arenas.at[s] = memory[s].data();

  // Rows of numbers: extremes in two of them.
  std::vector<std::vector<uint32_t>> q(rows, std::vector<uint32_t>(inputs));
  std::vector<AsymmetricScale> scale(rows);
  Fifo<Word, 1> quantized("quantized");
  Fifo<AsymmetricScale, 1> scales("scales");
  for (uint32_t r = 0; r < rows; ++r) {
    for (uint32_t& value : q[r]) value = static_cast<uint32_t>(random() % (precision.levels() + 1));
    if (r == 1) q[r].assign(inputs, precision.levels());
    if (r == 2) q[r].assign(inputs, 0);
    const Floats numbers = random_row(random, 2);
    scale[r] = AsymmetricScale{abs_of(numbers[0]) + 0.01f, 0.0f, numbers[1]};
    scales.write(scale[r]);
    for (uint32_t begin = 0; begin < inputs; begin += kBytesPerWord) {
      Word word = zero_word();
      for (uint32_t i = 0; i < kBytesPerWord && begin + i < inputs; ++i) {
        set_byte(word, i, q[r][begin + i]);
      }
      quantized.write(word);
    }
  }

  Fifo<Word, 1> activations[K::arrays];
  Fifo<Word, 1> q_sums[K::arrays];
  Fifo<Word, 1> parameters[K::weight_ports][PortShare<K>::arrays];
  Fifo<TileSums, 1> sums[K::arrays];
  Fifo<TileValues, 1> tiles("tiles");
  feed_activations<K, kInputs>(stage, quantized, activations, q_sums);
  for (uint32_t port = 0; port < K::weight_ports; ++port) {
    Fifo<Word, 1> multipliers[PortShare<K>::arrays];
    Fifo<Word, 1> loaded[PortShare<K>::arrays];
    load_tiles<K>(arenas_of_port<K>(arenas, port), port, stage, parameters[port], multipliers,
                  loaded);
    for (uint32_t slot = 0; slot < PortShare<K>::arrays; ++slot) {
      const uint32_t array = port + slot * K::weight_ports;
      Fifo<Word, 1> words("words");
      Fifo<GroupSums<A>, 1> group_sums("group_sums");
      replay_tiles<K, kPlaneWords>(array, stage, loaded[slot], words);
      multiply_tiles<K, A>(array, stage, words, activations[array], group_sums);
      fold_groups<K, A, kInputs>(array, stage, group_sums, q_sums[array], multipliers[slot],
                                 sums[array]);
      EXPECT_TRUE(loaded[slot].empty());
      EXPECT_TRUE(words.empty());
      EXPECT_TRUE(activations[array].empty());
      EXPECT_TRUE(q_sums[array].empty());
      EXPECT_TRUE(multipliers[slot].empty());
      EXPECT_TRUE(group_sums.empty());
    }
  }
  dequantize<K>(stage, parameters, sums, scales, tiles);

  TileOrder at = TileOrder::first();
  for (uint32_t i = 0; i < stage.tiles * rows; ++i) {
    const TileValues values = tiles.read();
    for (uint32_t r = 0; r < kTileRows; ++r) {
      const uint32_t o = at.tile * kTileRows + r;
      if (o >= outputs) {
        ASSERT_EQ(bits_of(values.value[r]), 0u) << "padding row " << o;
        continue;
      }
      int64_t acc = 0;
      for (uint32_t k = 0; k < inputs; ++k) {
        acc += int64_t{m.multiplier[o][k / kGroupInputs]} * q[at.row][k] * m.w[o][k];
      }
      const AsymmetricScale& s = scale[at.row];
      float y = static_cast<float>(acc) * (s.scale * m.scale[o]);
      y = y + s.zero * m.weight_sum[o];
      if (precision.bias) y = y + m.bias[o];
      ASSERT_EQ(bits_of(values.value[r]), bits_of(y)) << "output " << o << ", row " << at.row;
    }
    at.advance<K::arrays>(stage);
  }
  EXPECT_TRUE(tiles.empty());
}

template <typename K, typename A>
void run_precisions(uint32_t seed, const std::vector<uint32_t>& row_counts) {
  std::mt19937 random(seed);
  for (uint32_t bits = 0; bits < 16; ++bits) {
    const Precision precision{1 + bits % 2, 1 + bits / 2 % 2, bits / 4 % 2 == 1, bits / 8 == 1};
    for (const uint32_t inputs : {4u, 60u, 64u, 68u, 172u, 192u}) {
      const uint32_t outputs = 1 + static_cast<uint32_t>(random() % 250);
      const uint32_t rows = row_counts[random() % row_counts.size()];
      SCOPED_TRACE(std::to_string(outputs) + " x " + std::to_string(inputs) + ", rows " +
                   std::to_string(rows) + ", precision " + std::to_string(precision.encode()));
      run_case<K, A>(random, rows, outputs, inputs, precision);
      if (::testing::Test::HasFatalFailure()) return;
    }
  }
}

TEST(Linear, StreamsTilesPastOneBlock) {
  run_precisions<Streaming, Array<4, 16, 1>>(1, {1, 2, 5, 15, 16});
}

TEST(Linear, OneRowAtATime) { run_precisions<Streaming, Array<1, 32, 2>>(2, {1, 2, 16}); }

TEST(Linear, DealsTilesToTheArraysOfAPort) {
  run_precisions<Sharing, Array<2, 8, 1>>(3, {1, 2, 5, 15, 16});
}

TEST(Linear, ReplaysTilesForEveryBlock) {
  run_precisions<Replaying, Array<8, 32, 4>>(4, {1, 16, 17, 31, 33, 48});
}

TEST(Linear, LoadsTheTilesOfArraysInTurn) {
  run_precisions<ReplayingInTurn, Array<16, 32, 4>>(5, {1, 16, 17, 31, 33, 48});
}

TEST(Linear, ForwardsTilesUnchanged) {
  Stage stage = {};
  stage.rows = 3;
  stage.inputs = 68;
  stage.tiles = 4;
  stage.precision = Precision{2, 1, true, true}.encode();
  const TileLayout layout = stage.tile();
  const uint32_t words = 2 * (layout.words() - layout.planes());  // array 0 of 3: tiles 0, 3
  Fifo<Word, 1> in("in");
  Fifo<Word, 1> out("out");
  for (uint32_t w = 0; w < words; ++w) {
    Word word = zero_word();
    set_lane(word, 3, w);
    in.write(word);
  }
  forward_tiles<Streaming>(0, stage, in, out);
  for (uint32_t w = 0; w < words; ++w) ASSERT_EQ(get_lane(out.read(), 3), w);
  EXPECT_TRUE(in.empty());
  EXPECT_TRUE(out.empty());
}

}  // namespace
}  // namespace flexllm::kernels
