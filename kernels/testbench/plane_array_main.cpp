// Testbench of plane_array_top: matrices of every precision times rows, exact, against plain loops.
#include "kernels/testbench/matrix.h"
#include "kernels/testbench/tiles.h"

using namespace flexllm::kernels;

extern "C" void plane_array_top(Stage stage, Stream<Word>& weights, Stream<Word>& activations,
                                Stream<Word>& q_sums, Stream<Word>& multipliers,
                                Stream<TileSums>& out);

static void run(uint32_t rows, uint32_t outputs, uint32_t inputs, const Precision& precision,
                std::mt19937& random, Differences& differences) {
  const Matrix m = random_matrix(random, outputs, inputs, precision);
  const QuantizedRows x = random_quantized(random, rows, inputs, precision.levels());
  const Stage stage = stage_of(m, rows, 0);
  const TileLayout layout = m.layout();
  Queue<Word> weights("weights");
  Queue<Word> activations("activations");
  Queue<Word> q_sums("q_sums");
  Queue<Word> multipliers("multipliers");
  Queue<TileSums> out("out");
  const auto send_block = [&](uint32_t tile, uint32_t block) {
    for (uint32_t w = layout.planes(); w < layout.words(); ++w) {
      weights.write(tile_word(m, tile, w));
      activations.write(activation_word(x, block, (w - layout.planes()) % layout.plane_words()));
    }
    for (uint32_t group = 0; group < layout.groups(); ++group) {
      q_sums.write(group_word(x, block, group));
    }
  };
  for (const uint32_t panel : panels_of<BenchShape>(rows)) {
    for (uint32_t tile = 0; tile < stage.tiles; ++tile) {
      for (uint32_t w = layout.multipliers(); w < layout.planes(); ++w) {
        multipliers.write(tile_word(m, tile, w));
      }
      for (const uint32_t block : blocks_of<BenchShape>(panel, rows)) send_block(tile, block);
    }
  }
  plane_array_top(stage, weights, activations, q_sums, multipliers, out);
  const auto compare_row = [&](uint32_t tile, uint32_t row) {
    const TileSums sums = out.read();
    for (uint32_t r = 0; r < kTileRows; ++r) {
      const uint32_t output = tile * kTileRows + r;
      const int64_t expected = exact_sum(m, x.q[row], output);
      const auto actual = static_cast<int64_t>(sums.value[r]);
      differences.compare_bits("sum", inputs, output, static_cast<uint32_t>(expected),
                               static_cast<uint32_t>(actual));
      differences.compare_bits("upper half of sum", inputs, output,
                               static_cast<uint32_t>(expected >> 32),
                               static_cast<uint32_t>(actual >> 32));
    }
  };
  for (const uint32_t panel : panels_of<BenchShape>(rows)) {
    for (uint32_t tile = 0; tile < stage.tiles; ++tile) {
      for (uint32_t row = panel; row < panel + BenchShape::panel_rows && row < rows; ++row) {
        compare_row(tile, row);
      }
    }
  }
  differences.expect_empty("weights", weights.empty());
  differences.expect_empty("activations", activations.empty());
  differences.expect_empty("q_sums", q_sums.empty());
  differences.expect_empty("multipliers", multipliers.empty());
  differences.expect_empty("out", out.empty());
}

int main() {
  std::mt19937 random(1);
  Differences differences;
  for (uint32_t bits = 0; bits < 8; ++bits) {  // a bias is none of the array's business
    for (const uint32_t inputs : {4u, 68u, kBenchInputs}) {
      run(1 + bits, 40, inputs, precision_number(bits), random, differences);
    }
    run(27, 40, 132, precision_number(bits), random, differences);
  }
  return differences.status();
}
