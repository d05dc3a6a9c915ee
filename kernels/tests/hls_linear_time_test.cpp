// Virtual time of a matrix: the arrays run at their rate, and what is around them keeps up.
#include "kernels/tests/time_bench.h"
#include "kernels/tops/linear.h"

namespace flexllm::kernels {
namespace {

constexpr uint32_t kMostInputs = 1024;

struct Common {
  static constexpr uint32_t hidden = kMostInputs;
  static constexpr uint32_t ffn = kMostInputs;
  static constexpr uint32_t heads = 8;
  static constexpr uint32_t head_dim = 64;
  static constexpr uint32_t vocab = 4096;
};
struct Decode : Common {  // one block of rows, a port to an array
  static constexpr uint32_t rows = 16;
  static constexpr uint32_t panel_rows = 16;
  static constexpr uint32_t weight_streams = 4;
  static constexpr uint32_t weight_ports = 4;
  static constexpr uint32_t arrays = 4;
  static constexpr uint32_t output_parallel = 8;
};
struct Prefill : Common {  // several blocks, a port to three arrays
  static constexpr uint32_t rows = 96;
  static constexpr uint32_t panel_rows = 96;
  static constexpr uint32_t weight_streams = 4;
  static constexpr uint32_t weight_ports = 1;
  static constexpr uint32_t arrays = 3;
  static constexpr uint32_t output_parallel = 8;
};
template <uint32_t Tokens, uint32_t Rows, uint32_t Inputs>
struct Array {
  static constexpr uint32_t token_parallel = Tokens;
  static constexpr uint32_t row_parallel = Rows;
  static constexpr uint32_t input_parallel = Inputs;
};

void send_rows(uint32_t words, Stream<Word>& out) {
  for (uint32_t w = 0; w < words; ++w) {
    HLS_PIPELINE(1)
    out.write(zero_word());
  }
}

void take_tiles(uint32_t tiles, Stream<TileValues>& in) {
  for (uint32_t t = 0; t < tiles; ++t) {
    HLS_PIPELINE(1)
    in.read();
  }
}

template <typename K, typename A>
void run_matrix(const Arenas<K::weight_streams> weights, const Stage stage) {
  HLS_DATAFLOW("matrix");
  Fifo<Word, 32> rows("rows");
  Fifo<TileValues, 8> tiles("tiles");
  HLS_TASK(send_rows(stage.rows * float_words(stage.inputs), rows));
  HLS_TASK(multiply_matrix<K, A, kMostInputs>(weights, stage, rows, tiles));
  HLS_TASK(take_tiles(stage.rows * stage.tiles, tiles));
  HLS_DATAFLOW_END();
}

template <typename K, typename A>
Report matrix_time(uint32_t rows, uint32_t inputs, uint32_t tiles, Precision precision,
                   double port_bytes) {
  Stage stage = {};
  stage.kind = kGateUp;
  stage.rows = rows;
  stage.inputs = inputs;
  stage.outputs = tiles * kTileRows;
  stage.tiles = tiles;
  stage.precision = precision.encode();
  Timeline timeline;
  std::vector<std::vector<Word>> memory;
  Arenas<K::weight_streams> arenas;
  std::vector<size_t> ports;
  for (uint32_t p = 0; p < K::weight_ports; ++p) {
    ports.push_back(timeline.add_port({.name = "w" + std::to_string(p), .read_bytes = port_bytes}));
  }
  for (uint32_t s = 0; s < K::weight_streams; ++s) {
    memory.emplace_back(matrix_words(stage.outputs, stage.tile(), K::weight_streams), Word{});
    arenas.at[s] = memory[s].data();
    timeline.add_range(ports[s % K::weight_ports], memory[s].data(),
                       memory[s].size() * sizeof(Word));
  }
  {
    const Scope scope({.timeline = &timeline});
    run_matrix<K, A>(arenas, stage);
  }
  return timeline.report();
}

// What passes over the arrays take behind the first `few`: the rate, without fill and drain.
template <typename K, typename A>
double cycles_per_pass(uint32_t rows, uint32_t inputs, Precision precision, uint32_t few = 4,
                       double port_bytes = 64) {
  constexpr uint32_t kMore = 8;
  const Report begin = matrix_time<K, A>(rows, inputs, few * K::arrays, precision, port_bytes);
  const Report more =
      matrix_time<K, A>(rows, inputs, (few + kMore) * K::arrays, precision, port_bytes);
  return static_cast<double>(more.cycles - begin.cycles) / kMore;
}

// That of the doc block of multiply_tiles, for whole blocks and one in part.
template <typename A>
uint32_t array_cycles(uint32_t rows, uint32_t inputs, Precision precision) {
  uint32_t steps = rows / kBlockRows * (kBlockRows / A::token_parallel);
  steps += divide_up(rows % kBlockRows, A::token_parallel);
  return steps * precision.weight_planes * inputs / 4 * precision.activation_planes *
         (kTileRows / A::row_parallel) * (kInputsPerWord / A::input_parallel);
}

constexpr Precision kW4A4{1, 1, true, false};
constexpr Precision kW4A8{1, 2, true, false};
constexpr Precision kW8A8{2, 2, false, false};

// Arrays that wait for nothing.
template <typename K, typename A>
void expect_rate_of_arrays(uint32_t rows, uint32_t inputs, Precision precision) {
  const uint32_t expected = array_cycles<A>(rows, inputs, precision);
  EXPECT_NEAR((cycles_per_pass<K, A>(rows, inputs, precision)), expected, 0.003 * expected)
      << rows << " rows of " << inputs << ", precision " << precision.encode();
}

TEST(LinearTime, DecodeArraysRunOnFromTileToTile) {
  expect_rate_of_arrays<Decode, Array<4, 32, 4>>(8, 1024, kW4A4);
  expect_rate_of_arrays<Decode, Array<4, 32, 4>>(13, 1024, kW4A4);
  expect_rate_of_arrays<Decode, Array<4, 32, 4>>(16, 512, kW4A8);
  expect_rate_of_arrays<Decode, Array<4, 32, 4>>(3, 1024, kW4A8);
  expect_rate_of_arrays<Decode, Array<1, 32, 2>>(1, 1024, kW4A4);
  expect_rate_of_arrays<Decode, Array<2, 16, 1>>(5, 512, kW8A8);
}

// Once what the streams held at the start is used up.
TEST(LinearTime, OneRowIsReadAtTheRateOfThePorts) {
  const TileLayout w4 = {1024, kW4A4};
  const TileLayout w8 = {1024, {2, 1, false, false}};
  EXPECT_NEAR((cycles_per_pass<Decode, Array<4, 32, 4>>(1, 1024, kW4A4, 30)), w4.words(), 1);
  EXPECT_NEAR((cycles_per_pass<Decode, Array<4, 32, 4>>(4, 1024, w8.precision, 30)), w8.words(), 1);
}

TEST(LinearTime, PrefillArraysShareAPortWithoutWaiting) {
  expect_rate_of_arrays<Prefill, Array<16, 32, 4>>(96, 1024, kW4A4);
  expect_rate_of_arrays<Prefill, Array<16, 32, 4>>(64, 1024, kW4A4);
  expect_rate_of_arrays<Prefill, Array<8, 32, 2>>(40, 512, kW4A4);
  expect_rate_of_arrays<Prefill, Array<16, 32, 4>>(80, 512, kW8A8);
}

// At the 13 GB/s of a memory channel and 300 MHz: 3 tiles take the port three quarters of the time.
TEST(LinearTime, ASlowPortHoldsNoPrefillArrayBack) {
  typedef Array<16, 32, 4> A;
  for (const uint32_t rows : {96u, 81u}) {
    const uint32_t expected = array_cycles<A>(rows, 1024, kW4A4);
    EXPECT_NEAR((cycles_per_pass<Prefill, A>(rows, 1024, kW4A4, 4, 43.3)), expected,
                0.003 * expected);
  }
}

TEST(LinearTime, FewPrefillRowsAreReadAtTheRateOfThePort) {
  const TileLayout w4 = {1024, kW4A4};
  EXPECT_NEAR((cycles_per_pass<Prefill, Array<16, 32, 4>>(16, 1024, kW4A4)), 3 * w4.words(), 1);
}

struct Panels128 : Prefill {
  static constexpr uint32_t rows = 512;
  static constexpr uint32_t panel_rows = 128;
};

// Rows come in while the panel before is multiplied: only the first is waited for.
TEST(LinearTime, APanelMoreTakesTheArraysOwnTime) {
  typedef Array<16, 32, 4> A;
  constexpr uint32_t kTiles = 16 * Panels128::arrays;
  for (const Precision precision : {kW4A4, kW8A8}) {
    constexpr double bytes = 43.3;
    const Report two = matrix_time<Panels128, A>(256, 1024, kTiles, precision, bytes);
    const Report four = matrix_time<Panels128, A>(512, 1024, kTiles, precision, bytes);
    const double expected = 2 * 16.0 * array_cycles<A>(128, 1024, precision);
    EXPECT_NEAR(static_cast<double>(four.cycles - two.cycles), expected, 0.003 * expected);
  }
}

// An array may have a tile less in every panel, and the last panel fewer rows.
TEST(LinearTime, PanelsOfAnyShapeEnd) {
  for (const uint32_t tiles : {1u, 2u, 3u, 7u, 8u, 9u}) {
    for (const uint32_t rows : {128u, 129u, 300u}) {
      matrix_time<Panels128, Array<16, 32, 4>>(rows, 128, tiles, kW4A4, 43.3);
    }
  }
}

// With few inputs the sums of all arrays come faster than they are dequantised.
TEST(LinearTime, TheDequantiserSetsTheRateOfShortSums) {
  const uint32_t parameters = Decode::arrays * 4;
  const uint32_t outputs = Decode::arrays * 16 * kTileRows / Decode::output_parallel;
  EXPECT_NEAR((cycles_per_pass<Decode, Array<16, 32, 4>>(16, 64, kW4A4)), parameters + outputs, 1);
}

}  // namespace
}  // namespace flexllm::kernels
