// Testbench of dequantize_top: sums up to the widest, with and without bias, against the formula.
#include "kernels/testbench/matrix.h"
#include "kernels/testbench/tiles.h"

using namespace flexllm::kernels;

extern "C" void dequantize_top(Stage stage, Queue<Word> (&parameters)[BenchShape::weight_ports][1],
                               Queue<TileSums> (&sums)[BenchShape::arrays],
                               Stream<AsymmetricScale>& scales, Stream<TileValues>& out);

static void run(uint32_t rows, uint32_t outputs, bool bias, std::mt19937& random,
                Differences& differences) {
  const Matrix m = random_matrix(random, outputs, 4, Precision{1, 1, false, bias});
  const QuantizedRows x = random_quantized(random, rows, 4, 15);
  const Stage stage = stage_of(m, rows, 0);
  Queue<Word> parameters[BenchShape::weight_ports][1];
  Queue<TileSums> sums[BenchShape::arrays];
  Queue<AsymmetricScale> scales("scales");
  Queue<TileValues> out("out");
  for (const AsymmetricScale& scale : x.scale) scales.write(scale);
  for (size_t panel = 0; panel < panels_of<BenchShape>(rows).size(); ++panel) {
    for (uint32_t tile = 0; tile < stage.tiles; ++tile) {
      for (uint32_t w = 0; w < m.layout().multipliers(); ++w) {
        parameters[tile % BenchShape::arrays][0].write(tile_word(m, tile, w));
      }
    }
  }
  std::vector<Floats> expected;
  for (const TilePlace& at : tile_places<BenchShape>(stage)) {
    TileSums tile;
    expected.emplace_back();
    for (uint32_t r = 0; r < kTileRows; ++r) {
      const uint32_t output = at.tile * kTileRows + r;
      const auto wide = static_cast<int64_t>(static_cast<int32_t>(random()));
      const int64_t sum = output < outputs ? wide * (r % 2 == 0 ? 1 : 4096) : 0;
      tile.value[r] = sum;
      expected.back().push_back(reference_linear(m, sum, x.scale[at.row], output));
    }
    sums[at.tile % BenchShape::arrays].write(tile);
  }
  dequantize_top(stage, parameters, sums, scales, out);
  for (const Floats& values : expected) {
    const TileValues tile = out.read();
    differences.compare_rows(values, Floats(tile.value, tile.value + kTileRows));
  }
  differences.expect_empty("out", out.empty());
  differences.expect_empty("scales", scales.empty());
}

int main() {
  std::mt19937 random(1);
  Differences differences;
  for (const uint32_t outputs : {1u, 32u, 100u, 192u}) {
    for (const uint32_t rows : {1u, 16u, 27u}) {
      run(rows, outputs, false, random, differences);
      run(rows, outputs, true, random, differences);
    }
  }
  return differences.status();
}
