// Testbench of silu_gate_top: gate and up tiles in turn, whole tiles or not, against the formula.
#include "kernels/testbench/references.h"
#include "kernels/testbench/tiles.h"

using namespace flexllm::kernels;

extern "C" void silu_gate_top(Stage stage, Stream<TileValues>& tiles, Stream<Store>& out);

static void run(uint32_t rows, uint32_t size, std::mt19937& random, Differences& differences) {
  Stage stage = {};
  stage.kind = kGateUp;
  stage.rows = rows;
  stage.outputs = size;
  stage.tiles = gate_up_tiles(size);
  stage.result = 7;
  Queue<TileValues> tiles("tiles");
  Queue<Store> out("out");
  std::vector<Floats> gates;
  std::vector<Floats> ups;
  std::vector<Floats> expected;
  for (uint32_t row = 0; row < rows; ++row) {
    gates.push_back(random_row(random, size));
    ups.push_back(random_row(random, size));
    expected.emplace_back();
    for (uint32_t i = 0; i < size; ++i) {
      expected[row].push_back(reference_gate(gates[row][i], ups[row][i]));
    }
  }
  const auto value = [&](uint32_t row, uint32_t output) {
    const uint32_t i = output / (2 * kTileRows) * kTileRows + output % kTileRows;
    if (i >= size) return 0.0f;
    return output / kTileRows % 2 == 0 ? gates[row][i] : ups[row][i];
  };
  send_tiles<BenchShape>(stage, value, tiles);
  silu_gate_top(stage, tiles, out);
  compare_stores(expected, stage.result, float_words(size), out, differences);
  differences.expect_empty("tiles", tiles.empty());
}

int main() {
  std::mt19937 random(1);
  Differences differences;
  for (const uint32_t size : {4u, 36u, 64u, 180u}) {
    run(3, size, random, differences);
    run(27, size, random, differences);
  }
  return differences.status();
}
