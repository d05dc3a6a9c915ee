// Testbench of residual_top: sums of rows, whole tiles or not, in one block of rows or two.
#include "kernels/testbench/tiles.h"

using namespace flexllm::kernels;

extern "C" void residual_top(Stage stage, Stream<TileValues>& tiles, Stream<Word>& residuals,
                             Stream<Store>& out);

static void run(uint32_t rows, uint32_t size, std::mt19937& random, Differences& differences) {
  Stage stage = {};
  stage.kind = kDown;
  stage.rows = rows;
  stage.outputs = size;
  stage.tiles = row_tiles(size);
  stage.result = 7;
  Queue<TileValues> tiles("tiles");
  Queue<Word> residuals("residuals");
  Queue<Store> out("out");
  std::vector<Floats> x;
  std::vector<Floats> y;
  for (uint32_t row = 0; row < rows; ++row) {
    x.push_back(random_row(random, size));
    y.push_back(random_row(random, size));
  }
  send_tiles<BenchShape>(
      stage, [&](uint32_t row, uint32_t i) { return i < size ? y[row][i] : 1e30f; }, tiles);
  for (const TilePlace& at : tile_places<BenchShape>(stage)) {
    for (uint32_t half = 0; half < 2; ++half) {
      const uint32_t begin = at.tile * kTileRows + half * kFloatsPerWord;
      if (begin >= size) continue;
      Word word = zero_word();
      for (uint32_t lane = 0; lane < kFloatsPerWord && begin + lane < size; ++lane) {
        set_float(word, lane, x[at.row][begin + lane]);
      }
      residuals.write(word);
    }
  }
  residual_top(stage, tiles, residuals, out);
  for (uint32_t row = 0; row < rows; ++row) {
    for (uint32_t i = 0; i < size; ++i) x[row][i] = x[row][i] + y[row][i];
  }
  compare_stores(x, stage.result, float_words(size), out, differences);
  differences.expect_empty("tiles", tiles.empty());
  differences.expect_empty("residuals", residuals.empty());
}

int main() {
  std::mt19937 random(1);
  Differences differences;
  for (const uint32_t size : {4u, 36u, 68u, 192u}) {
    run(3, size, random, differences);
    run(27, size, random, differences);
  }
  return differences.status();
}
