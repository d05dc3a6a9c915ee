// Testbench of the linear layer's modules: from tiles in the arenas and quantised rows to floats.
#include "kernels/modules/activations.h"
#include "kernels/modules/dequantize.h"
#include "kernels/modules/plane_array.h"
#include "kernels/modules/weights.h"
#include "kernels/testbench/matrix.h"
#include "kernels/tests/module_bench.h"

namespace flexllm::kernels {
namespace {

constexpr uint32_t kInputs = 192;
constexpr uint32_t kPlaneWords = 2 * kInputs / kInputsPerWord;

struct Streaming {  // one block, a port per arena
  static constexpr uint32_t rows = 16;
  static constexpr uint32_t panel_rows = 16;
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
  static constexpr uint32_t panel_rows = 48;
  static constexpr uint32_t weight_streams = 4;
  static constexpr uint32_t weight_ports = 2;
  static constexpr uint32_t arrays = 2;
};
struct ReplayingInTurn : Replaying {  // three arrays to the only port, four arenas
  static constexpr uint32_t weight_ports = 1;
  static constexpr uint32_t arrays = 3;
  static constexpr uint32_t output_parallel = 1;
};
struct Panelled : ReplayingInTurn {  // up to four panels of a block, or two of two
  static constexpr uint32_t rows = 64;
  static constexpr uint32_t panel_rows = 16;
};
struct WidePanels : Replaying {
  static constexpr uint32_t rows = 64;
  static constexpr uint32_t panel_rows = 32;
};
template <uint32_t Tokens, uint32_t Rows, uint32_t Inputs>
struct Array {
  static constexpr uint32_t token_parallel = Tokens;
  static constexpr uint32_t row_parallel = Rows;
  static constexpr uint32_t input_parallel = Inputs;
};

template <typename K, typename A>
void run_case(std::mt19937& random, uint32_t rows, uint32_t outputs, uint32_t inputs,
              Precision precision) {
  const Matrix m = random_matrix(random, outputs, inputs, precision);
  const Stage stage = stage_of(m, rows, 5);
  const std::vector<std::vector<Word>> memory = arenas_of(m, stage.weights, K::weight_streams);
  Arenas<K::weight_streams> arenas;
  for (uint32_t s = 0; s < K::weight_streams; ++s) arenas.at[s] = memory[s].data();

  const QuantizedRows x = random_quantized(random, rows, inputs, precision.levels());
  Fifo<Word, 1> quantized("quantized");
  Fifo<AsymmetricScale, 1> scales("scales");
  for (const AsymmetricScale& scale : x.scale) scales.write(scale);
  send_quantized(x, quantized);

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
      const float y = reference_linear(m, exact_sum(m, x.q[at.row], o), x.scale[at.row], o);
      ASSERT_EQ(bits_of(values.value[r]), bits_of(y)) << "output " << o << ", row " << at.row;
    }
    at.advance<K>(stage);
  }
  EXPECT_TRUE(tiles.empty());
}

template <typename K, typename A>
void run_precisions(uint32_t seed, const std::vector<uint32_t>& row_counts) {
  std::mt19937 random(seed);
  for (uint32_t bits = 0; bits < 16; ++bits) {
    const Precision precision = precision_number(bits);
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

TEST(Linear, PanelsPassByInTurn) {
  run_precisions<Panelled, Array<16, 32, 4>>(6, {1, 16, 17, 32, 33, 63, 64});
  run_precisions<WidePanels, Array<8, 32, 2>>(7, {1, 31, 32, 33, 48, 64});
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
