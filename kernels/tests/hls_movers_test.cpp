// Testbenches of the row movers of kernels/modules/rows.h: each word that they move, and where to.
#include "kernels/modules/rows.h"
#include "kernels/testbench/tiles.h"
#include "kernels/tests/module_bench.h"

namespace flexllm::kernels {
namespace {

constexpr StageKind kKinds[] = {kQkv, kOutput, kGateUp, kDown, kLmHead};

Word numbered_word(uint32_t number) {
  Word word = zero_word();
  for (uint32_t lane = 0; lane < kFieldsPerWord; ++lane) set_lane(word, lane, 100 * number + lane);
  return word;
}

std::vector<Word> numbered_words(uint32_t count) {
  std::vector<Word> words;
  for (uint32_t i = 0; i < count; ++i) words.push_back(numbered_word(i));
  return words;
}

void expect_number(uint32_t number, const Word& word) {
  for (uint32_t lane = 0; lane < kFieldsPerWord; ++lane) {
    ASSERT_EQ(get_lane(word, lane), 100 * number + lane);
  }
}

TEST(Movers, ARunOfWordsGoesFromBufferToBuffer) {
  const std::vector<Word> from = numbered_words(9);
  std::vector<Word> to(9, zero_word());
  Fifo<Word, 1> words("words");
  send_words(from.data(), 2, 5, words);
  write_words(to.data(), 3, 5, words);
  EXPECT_TRUE(words.empty());
  for (uint32_t i = 0; i < 5; ++i) expect_number(2 + i, to[3 + i]);
  EXPECT_EQ(get_lane(to[2], 1), 0u);
  EXPECT_EQ(get_lane(to[8], 1), 0u);
}

TEST(Movers, RowsGoToTheModuleThatStoresByThem) {
  for (const StageKind kind : kKinds) {
    SCOPED_TRACE(kind);
    Stage stage = {};
    stage.kind = kind;
    stage.rows = 5;
    Fifo<RowInfo, 1> rows("rows");
    Fifo<RowInfo, 1> pages("pages");
    Fifo<RowInfo, 1> logits("logits");
    for (uint32_t row = 0; row < stage.rows; ++row) {
      RowInfo info = {};
      info.row = row + 7;
      rows.write(info);
    }
    route_rows<BenchShape>(stage, rows, pages, logits);
    for (uint32_t row = 0; row < stage.rows; ++row) {
      if (kind == kQkv) {
        ASSERT_EQ(pages.read().row, row + 7);
      }
      if (kind == kLmHead) {
        ASSERT_EQ(logits.read().row, row + 7);
      }
    }
    EXPECT_TRUE(rows.empty() && pages.empty() && logits.empty());
  }
}

TEST(Movers, TilesGoToTheModuleOfTheirKind) {
  for (const StageKind kind : kKinds) {
    SCOPED_TRACE(kind);
    Stage stage = {};
    stage.kind = kind;
    stage.rows = 3;
    stage.tiles = 4;
    Fifo<TileValues, 1> tiles("tiles");
    Fifo<TileValues, 1> heads("heads");
    Fifo<TileValues, 1> sums("sums");
    Fifo<TileValues, 1> gates("gates");
    Fifo<TileValues, 1> logits("logits");
    for (uint32_t i = 0; i < 12; ++i) {
      TileValues tile = {};
      tile.value[31] = static_cast<float>(i);
      tiles.write(tile);
    }
    route_tiles<BenchShape>(stage, tiles, heads, sums, gates, logits);
    Stream<TileValues>& taken = kind == kQkv      ? heads
                                : kind == kGateUp ? gates
                                : kind == kLmHead ? logits
                                                  : sums;
    for (uint32_t i = 0; i < 12; ++i) ASSERT_EQ(taken.read().value[31], static_cast<float>(i));
    EXPECT_TRUE(tiles.empty() && heads.empty() && sums.empty() && gates.empty() && logits.empty());
  }
}

TEST(Movers, StoresOfTheModuleOfTheKindReachScratch) {
  for (const StageKind kind : kKinds) {
    SCOPED_TRACE(kind);
    Stage stage = {};
    stage.kind = kind;
    Fifo<Store, 1> queries("queries");
    Fifo<Store, 1> sums("sums");
    Fifo<Store, 1> gates("gates");
    Fifo<Store, 1> logits("logits");
    Fifo<Store, 1> out("out");
    Stream<Store>& from = kind == kQkv      ? queries
                          : kind == kGateUp ? gates
                          : kind == kLmHead ? logits
                                            : sums;
    for (uint32_t i = 0; i < 6; ++i) from.write(Store{9 - i, false, numbered_word(i)});
    from.write(end_of_stores());
    merge_stores(stage, queries, sums, gates, logits, out);
    std::vector<Word> scratch(12, zero_word());
    write_stores(scratch.data(), out);
    for (uint32_t i = 0; i < 6; ++i) expect_number(i, scratch[9 - i]);
    EXPECT_EQ(get_lane(scratch[3], 1), 0u);
    EXPECT_EQ(get_lane(scratch[10], 1), 0u);
    EXPECT_TRUE(from.empty() && out.empty());
  }
}

struct OnePanel : BenchShape {
  static constexpr uint32_t panel_rows = rows;
};

TEST(Movers, AllRowsComeWithTheirResidualsInTileOrder) {
  Stage stage = {};
  stage.kind = kOutput;
  stage.rows = 19;
  stage.inputs = 40;
  stage.outputs = 68;
  stage.tiles = row_tiles(68);
  stage.input = 4;
  stage.residual = stage.input + stage.rows * float_words(40);
  const std::vector<Word> scratch =
      numbered_words(stage.residual + stage.rows * float_words(stage.outputs));
  Fifo<Word, 1> inputs("inputs");
  Fifo<Word, 1> residuals("residuals");
  read_all<OnePanel>(scratch.data(), stage, inputs, residuals);
  for (uint32_t w = 0; w < stage.rows * float_words(40); ++w) {
    expect_number(stage.input + w, inputs.read());
  }
  for (const TilePlace& at : tile_places<OnePanel>(stage)) {
    for (uint32_t word = 2 * at.tile; word < 2 * at.tile + 2 && word < float_words(68); ++word) {
      expect_number(stage.residual + at.row * float_words(68) + word, residuals.read());
    }
  }
  EXPECT_TRUE(inputs.empty() && residuals.empty());
}

// Rows 0 .. 4 of two sequences in turn, of which those with odd numbers want logits.
struct ListedLaunch {
  ListedLaunch() {
    launch.rows = 5;
    launch.row_table = 1;
    launch.page_tables = 6;
    launch.page_table_stride = 1;
    info.head_dim = 40;
    info.rope = 30;
    for (uint32_t row = 0; row < launch.rows; ++row) {
      set_lane(desc[1 + row], row_field::sequence, row % 2);
      set_lane(desc[1 + row], row_field::position, position(row));
      set_lane(desc[1 + row], row_field::flags, row % 2 == 1 ? row_flag::target_logprob : 0u);
    }
  }
  static uint32_t position(uint32_t row) { return 30 + 3 * row; }
  // Of a page of a sequence: lane `page` of its table.
  static uint32_t page(uint32_t row) { return 100 * (6 + row % 2) + position(row) / kPageTokens; }

  std::vector<Word> desc = numbered_words(8);
  std::vector<Word> model = numbered_words(30 + 3 * 64);
  LaunchInfo launch = {};
  ModelInfo info = {};
};

TEST(Movers, AStageGetsItsGainsItsRowsWithTheirPagesAndTheirRopeRows) {
  const ListedLaunch given;
  const std::vector<Word> scratch = numbered_words(45);
  for (const StageKind kind : kKinds) {
    SCOPED_TRACE(kind);
    Stage stage = {};
    stage.kind = kind;
    stage.inputs = 68;
    stage.outputs = 16;
    stage.tiles = 1;
    stage.input = 6;
    stage.residual = 40;
    stage.gain = 3;
    stage.q_norm = 11;
    stage.k_norm = 20;
    Fifo<uint32_t, 1> read("read");
    Fifo<RowInfo, 1> listed("listed");
    Fifo<Word, 1> inputs("inputs");
    Fifo<Word, 1> residuals("residuals");
    Fifo<Word, 1> gains("gains");
    Fifo<Word, 1> head_gains("head_gains");
    Fifo<Word, 1> rope("rope");
    list_stage<BenchShape>(given.desc.data(), given.model.data(), given.launch, given.info, stage,
                           read, listed, gains, head_gains, rope);
    stage.rows = kind == kLmHead ? 2 : given.launch.rows;
    read_listed<BenchShape>(scratch.data(), stage, read, inputs, residuals);
    if (stage.normalized()) {
      for (uint32_t w = 0; w < float_words(68); ++w) expect_number(3 + w, gains.read());
    }
    for (uint32_t row = 0; row < given.launch.rows; ++row) {
      if (kind == kLmHead && row % 2 == 0) continue;
      if (stage.residual_added()) expect_number(stage.residual + row, residuals.read());
      for (uint32_t w = 0; w < float_words(68); ++w) {
        expect_number(stage.input + row * float_words(68) + w, inputs.read());
      }
      const RowInfo info = listed.read();
      EXPECT_EQ(info.row, row);
      EXPECT_EQ(info.position, ListedLaunch::position(row));
      if (kind != kQkv) continue;
      EXPECT_EQ(info.page, ListedLaunch::page(row));
      for (uint32_t w = 0; w < 3; ++w) {
        expect_number(30 + 3 * ListedLaunch::position(row) + w, rope.read());
      }
    }
    for (const uint32_t gain : {11u, 20u}) {
      for (uint32_t w = 0; kind == kQkv && w < 3; ++w) expect_number(gain + w, head_gains.read());
    }
    EXPECT_TRUE(read.empty() && listed.empty() && gains.empty());
    EXPECT_TRUE(head_gains.empty() && rope.empty() && inputs.empty() && residuals.empty());
  }
}

}  // namespace
}  // namespace flexllm::kernels
