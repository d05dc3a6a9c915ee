// Testbenches of the way of q, k and v from tiles to scratch and pages.
#include <algorithm>

#include "kernels/modules/heads.h"
#include "kernels/tests/module_bench.h"
#include "kernels/tests/module_time.h"

namespace flexllm::kernels {
namespace {

struct HeadShape {
  static constexpr uint32_t rows = 60;
  static constexpr uint32_t panel_rows = 32;
  static constexpr uint32_t heads = 6;
  static constexpr uint32_t kv_heads = 4;
  static constexpr uint32_t head_dim = 64;
  static constexpr uint32_t weight_ports = 3;
  static constexpr uint32_t arrays = 3;
  static constexpr uint32_t kv_streams = 6;
  static constexpr uint32_t kv_ports = 2;
};

constexpr uint32_t kHeadDims[] = {8u, 16u, 24u, 40u, 48u, 64u};

// Tiles of a matrix with `outputs` rows in the order in which the arrays deliver them: output o of
// row r is 1000 r + o; padding is -1.
void send_tiles(const Stage& stage, Stream<TileValues>& out) {
  const auto send = [&](uint32_t tile, uint32_t row) {
    TileValues values;
    for (uint32_t r = 0; r < kTileRows; ++r) {
      const uint32_t output = tile * kTileRows + r;
      values.value[r] = output < stage.outputs ? static_cast<float>(1000 * row + output) : -1.0f;
    }
    out.write(values);
  };
  for (uint32_t panel = 0; panel < stage.rows; panel += HeadShape::panel_rows) {
    const uint32_t panel_end = std::min(panel + HeadShape::panel_rows, stage.rows);
    for (uint32_t pass = 0; pass < stage.tiles; pass += HeadShape::arrays) {
      const uint32_t pass_end = std::min(pass + HeadShape::arrays, stage.tiles);
      for (uint32_t row = panel; row < panel_end; ++row) {
        for (uint32_t tile = pass; tile < pass_end; ++tile) send(tile, row);
      }
    }
  }
}

TEST(AssembleHeads, CutsEveryRowIntoItsHeads) {
  for (const uint32_t head_dim : kHeadDims) {
    SCOPED_TRACE(head_dim);
    const uint32_t heads = 14;
    Stage stage = {};
    stage.kind = kQkv;
    stage.rows = 51;  // a panel of two blocks; a block and a part of one
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
  for (const uint32_t head_dim : kHeadDims) {
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

// A launch of random heads in the order in which tiles deliver them: rows in turn.
struct HeadCase {
  HeadCase(uint32_t head_dim, uint32_t rows, uint32_t seed) {
    std::mt19937 random(seed);
    info.heads = HeadShape::heads;
    info.kv_heads = 3;
    info.head_dim = head_dim;
    info.rms_eps = 1e-5f;
    info.layers = 2;
    stage.kind = kQkv;
    stage.rows = rows;
    stage.layer = 1;
    for (uint32_t row = 0; row < rows; ++row) {
      tables.push_back(random_row(random, head_dim));
      heads.emplace_back();
      for (uint32_t head = 0; head < count(); ++head) {
        heads[row].push_back(random_row(random, head_dim));
      }
    }
    q_gain = random_row(random, head_dim);
    k_gain = random_row(random, head_dim);
  }

  uint32_t count() const { return info.heads + 2 * info.kv_heads; }

  void send(uint32_t begin, uint32_t end, Stream<HeadTag>& tags, Stream<Word>& words) const {
    for (uint32_t head = begin; head < end; ++head) {
      for (uint32_t row = 0; row < stage.rows; ++row) {
        tags.write(HeadTag{row, head});
        send_row(heads[row][head], words);
      }
    }
  }

  // A head behind norm and RoPE.
  Floats rotated(uint32_t row, uint32_t head) const {
    Floats x = heads[row][head];
    if (head >= info.heads + info.kv_heads) return x;
    const bool is_query = head < info.heads;
    const uint32_t norm = is_query ? stage.q_norm : stage.k_norm;
    if (norm != 0) x = reference_norm(x, is_query ? q_gain : k_gain, info.rms_eps);
    return reference_rope(x, tables[row]);
  }

  ModelInfo info = {};
  Stage stage = {};
  std::vector<Floats> tables;
  std::vector<std::vector<Floats>> heads;  // by row
  Floats q_gain;
  Floats k_gain;
};

TEST(RotateHeads, EqualsTheFormulas) {
  for (const uint32_t head_dim : kHeadDims) {
    for (uint32_t norms = 0; norms < 4; ++norms) {
      SCOPED_TRACE(std::to_string(head_dim) + ", norms " + std::to_string(norms));
      HeadCase given(head_dim, 3, head_dim + norms);
      given.stage.q_norm = norms & 1u;
      given.stage.k_norm = norms & 2u;
      Fifo<Word, 1> gains("gains");
      Fifo<Word, 1> rope("rope");
      Fifo<HeadTag, 1> tags("tags");
      Fifo<Word, 1> words("words");
      Fifo<HeadTag, 1> query_tags("query_tags");
      Fifo<Word, 1> queries("queries");
      Fifo<HeadTag, 1> kv_tags("kv_tags");
      Fifo<Word, 1> kv("kv");
      if (given.stage.q_norm != 0) send_row(given.q_gain, gains);
      if (given.stage.k_norm != 0) send_row(given.k_gain, gains);
      for (const Floats& table : given.tables) send_row(table, rope);
      given.send(0, given.count(), tags, words);
      rotate_heads<HeadShape>(given.stage, given.info, gains, rope, tags, words, query_tags,
                              queries, kv_tags, kv);
      for (uint32_t head = 0; head < given.count(); ++head) {
        for (uint32_t row = 0; row < given.stage.rows; ++row) {
          const bool is_query = head < given.info.heads;
          const HeadTag tag = is_query ? query_tags.read() : kv_tags.read();
          ASSERT_EQ(tag.row, row);
          ASSERT_EQ(tag.head, head);
          expect_same_bits(given.rotated(row, head),
                           receive_row(head_dim, is_query ? queries : kv));
        }
      }
      EXPECT_TRUE(queries.empty() && kv.empty() && gains.empty() && rope.empty());
    }
  }
}

TEST(QuantizeKv, WritesTheRecordsOfEveryRow) {
  for (const uint32_t head_dim : kHeadDims) {
    SCOPED_TRACE(head_dim);
    HeadCase given(head_dim, 5, head_dim);
    given.heads[1][given.info.heads].assign(head_dim, 0.0f);
    given.heads[2][given.info.heads][1] = std::numeric_limits<float>::quiet_NaN();
    Fifo<RowInfo, 1> rows("rows");
    Fifo<HeadTag, 1> tags("tags");
    Fifo<Word, 1> words("words");
    Fifo<PageStore, 1> stores[HeadShape::kv_ports];
    for (uint32_t row = 0; row < given.stage.rows; ++row) {
      RowInfo listed = {};
      listed.page = 3 * row + 1;
      listed.position = 29 * row;
      rows.write(listed);
    }
    given.send(given.info.heads, given.count(), tags, words);
    quantize_kv<HeadShape>(given.stage, given.info, rows, tags, words, stores);
    const KvLayout layout = given.info.kv();
    std::vector<std::vector<Word>> arenas(HeadShape::kv_streams,
                                          std::vector<Word>(4 * layout.page_words(), zero_word()));
    for (uint32_t port = 0; port < HeadShape::kv_ports; ++port) {
      for (PageStore s = stores[port].read(); !s.last; s = stores[port].read()) {
        arenas[port + s.arena * HeadShape::kv_ports][s.address] = s.data;
      }
    }
    for (uint32_t row = 0; row < given.stage.rows; ++row) {
      const uint32_t page = 3 * row + 1;
      const uint32_t token = 29 * row % kPageTokens;
      const Word* layer =
          &arenas[page % HeadShape::kv_streams]
                 [page / HeadShape::kv_streams * layout.page_words() + layout.layer_words()];
      for (uint32_t index = 0; index < 2 * given.info.kv_heads; ++index) {
        const Floats& x = given.heads[row][given.info.heads + index];
        const bool is_value = index >= given.info.kv_heads;
        float largest = 0.0f;
        for (const float v : x) largest = max_of(abs_of(v), largest);
        const SymmetricScale scale = symmetric_scale(largest);
        ASSERT_EQ(get_lane(layer[token * layout.scale_words() + index / kFloatsPerWord],
                           index % kFloatsPerWord),
                  bits_of(scale.scale));
        const Word* record = layer + (is_value ? layout.values() : layout.keys()) +
                             token * layout.token_words() +
                             index % given.info.kv_heads * layout.head_words();
        for (uint32_t i = 0; i < layout.head_words() * kBytesPerWord; ++i) {
          const int32_t q = i < head_dim ? quantize_signed(x[i] * scale.inverse) : 0;
          ASSERT_EQ(get_signed_byte(record[i / kBytesPerWord], i % kBytesPerWord), q);
        }
      }
    }
  }
}

#if !FLEXLLM_HLS_TYPES

TEST(HeadTime, EightFloatsOfQkvACycle) {
  const HeadCase given(64, 8, 1);
  Stage stage = given.stage;
  stage.outputs = given.count() * 64;
  stage.tiles = row_tiles(stage.outputs);
  const uint64_t floats = uint64_t{stage.outputs} * stage.rows;
  {
    Fifo<TileValues, 1> tiles("tiles");
    Fifo<HeadTag, 1> tags("tags");
    Fifo<Word, 1> words("words");
    send_tiles(stage, tiles);
    const uint64_t cycles = timed_cycles([&] {
      HLS_DATAFLOW("bench");
      HLS_TASK(assemble_heads<HeadShape>(stage, 64, tiles, tags, words));
      HLS_DATAFLOW_END();
    });
    EXPECT_EQ(cycles, kRegionCycles + floats / 8);
  }
  {
    Fifo<Word, 1> gains("gains");
    Fifo<Word, 1> rope("rope");
    Fifo<HeadTag, 1> tags("tags");
    Fifo<Word, 1> words("words");
    Fifo<HeadTag, 1> query_tags("query_tags");
    Fifo<Word, 1> queries("queries");
    Fifo<HeadTag, 1> kv_tags("kv_tags");
    Fifo<Word, 1> kv("kv");
    for (const Floats& table : given.tables) send_row(table, rope);
    given.send(0, given.count(), tags, words);
    const uint64_t cycles = timed_cycles([&] {
      rotate_heads<HeadShape>(stage, given.info, gains, rope, tags, words, query_tags, queries,
                              kv_tags, kv);
    });
    EXPECT_GE(cycles, floats / 8);
    EXPECT_LT(cycles, floats / 8 + 200);
  }
}

#endif

}  // namespace
}  // namespace flexllm::kernels
