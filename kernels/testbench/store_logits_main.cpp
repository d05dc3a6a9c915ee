// Testbench of store_logits_top: rows whose slots are in reverse.
#include "kernels/testbench/tiles.h"

using namespace flexllm::kernels;

extern "C" void store_logits_top(Stage stage, Stream<RowInfo>& rows, Stream<TileValues>& tiles,
                                 Stream<Store>& out);

static void run(uint32_t rows, uint32_t vocab, std::mt19937& random, Differences& differences) {
  Stage stage = {};
  stage.kind = kLmHead;
  stage.rows = rows;
  stage.outputs = vocab;
  stage.tiles = row_tiles(vocab);
  stage.result = 7;
  Queue<RowInfo> list("list");
  Queue<TileValues> tiles("tiles");
  Queue<Store> out("out");
  std::vector<Floats> slots;  // whole tiles: padding is stored too
  for (uint32_t slot = 0; slot < rows; ++slot) {
    slots.push_back(random_row(random, kTileRows * stage.tiles));
    RowInfo row = {};
    row.logits_slot = rows - 1 - slot;
    list.write(row);
  }
  send_tiles<BenchShape>(
      stage, [&](uint32_t row, uint32_t i) { return slots[rows - 1 - row][i]; }, tiles);
  store_logits_top(stage, list, tiles, out);
  compare_stores(slots, stage.result, logits_words(vocab), out, differences);
  differences.expect_empty("list", list.empty());
  differences.expect_empty("tiles", tiles.empty());
}

int main() {
  std::mt19937 random(1);
  Differences differences;
  for (const uint32_t vocab : {1u, 32u, 100u, 512u}) {
    run(3, vocab, random, differences);
    run(27, vocab, random, differences);
  }
  return differences.status();
}
