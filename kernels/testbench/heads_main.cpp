// Testbench of heads_top: head norms, RoPE, packed queries and the records of k and v, against the
// formulas.
#include "kernels/testbench/attention.h"
#include "kernels/testbench/plain_quantizers.h"
#include "kernels/testbench/references.h"
#include "kernels/testbench/tiles.h"

using namespace flexllm::kernels;

extern "C" void heads_top(Stage stage, ModelInfo info, Stream<TileValues>& tiles,
                          Stream<Word>& gains, Stream<Word>& rope, Stream<RowInfo>& rows,
                          Stream<Store>& queries, Queue<PageStore> (&pages)[BenchShape::kv_ports]);

static void quantize_record(const Floats& x, std::vector<int32_t>& record, float& scale) {
  const PlainScheme<8, true> plain(x);
  for (const float v : x) record.push_back(plain.encode(v));
  scale = plain.scale;
}

static void run(uint32_t rows, uint32_t head_dim, uint32_t norms, std::mt19937& random,
                Differences& differences) {
  ModelInfo info = model_info(BenchShape::heads, BenchShape::kv_heads, head_dim, 255);
  info.rms_eps = 1e-5f;
  const uint32_t heads = info.heads + 2 * info.kv_heads;
  Stage stage = {};
  stage.kind = kQkv;
  stage.rows = rows;
  stage.outputs = heads * head_dim;
  stage.tiles = row_tiles(stage.outputs);
  stage.result = 11;
  stage.layer = kLayer;
  stage.q_norm = norms & 1u;
  stage.k_norm = norms & 2u;
  Queue<TileValues> tiles("tiles");
  Queue<Word> gains("gains");
  Queue<Word> rope("rope");
  Queue<RowInfo> list("list");
  Queue<Store> queries("queries");
  Queue<PageStore> stores[BenchShape::kv_ports];
  const Floats q_gain = random_row(random, head_dim);
  const Floats k_gain = random_row(random, head_dim);
  if (stage.q_norm != 0) send_row(q_gain, gains);
  if (stage.k_norm != 0) send_row(k_gain, gains);

  Pages<BenchShape> expected_pages(info.kv(), 3 * rows);
  Pages<BenchShape> pages(info.kv(), 3 * rows);
  std::vector<Floats> x;
  std::vector<Floats> expected_queries;
  for (uint32_t row = 0; row < rows; ++row) {
    x.push_back(random_row(random, stage.outputs));
    const Floats table = random_row(random, head_dim);
    send_row(table, rope);
    RowInfo info_of_row = {};
    info_of_row.page = 3 * row + 1;
    info_of_row.position = 29 * row;
    list.write(info_of_row);
    expected_queries.emplace_back();
    Token token(info.kv_heads);
    for (uint32_t head = 0; head < heads; ++head) {
      const auto begin = x[row].begin() + head * head_dim;
      Floats y(begin, begin + head_dim);
      const bool is_query = head < info.heads;
      const bool is_value = head >= info.heads + info.kv_heads;
      if (is_query && stage.q_norm != 0) y = reference_norm(y, q_gain, info.rms_eps);
      if (!is_query && !is_value && stage.k_norm != 0) y = reference_norm(y, k_gain, info.rms_eps);
      if (!is_value) y = reference_rope(y, table);
      KvRecord& record = token[is_query ? 0 : (head - info.heads) % info.kv_heads];
      if (is_query) {
        expected_queries[row].insert(expected_queries[row].end(), y.begin(), y.end());
      } else if (is_value) {
        quantize_record(y, record.v, record.v_scale);
      } else {
        quantize_record(y, record.k, record.k_scale);
      }
    }
    expected_pages.write(info_of_row.page, info_of_row.position % kPageTokens, token);
  }
  send_tiles<BenchShape>(
      stage, [&](uint32_t row, uint32_t i) { return i < stage.outputs ? x[row][i] : 1e30f; },
      tiles);
  heads_top(stage, info, tiles, gains, rope, list, queries, stores);
  compare_stores(expected_queries, stage.result, float_words(info.attention()), queries,
                 differences);
  for (uint32_t port = 0; port < BenchShape::kv_ports; ++port) {
    for (PageStore s = stores[port].read(); !s.last; s = stores[port].read()) {
      pages.arenas.at[port + s.arena * BenchShape::kv_ports][s.address] = s.data;
    }
    differences.expect_empty("stores", stores[port].empty());
  }
  for (uint32_t s = 0; s < BenchShape::kv_streams; ++s) {
    for (size_t w = 0; w < pages.words[s].size(); ++w) {
      differences.compare_words("page", w, expected_pages.words[s][w], pages.words[s][w]);
    }
  }
  differences.expect_empty("tiles", tiles.empty());
  differences.expect_empty("gains", gains.empty());
  differences.expect_empty("rope", rope.empty());
  differences.expect_empty("list", list.empty());
}

int main() {
  std::mt19937 random(1);
  Differences differences;
  for (const uint32_t head_dim : {8u, 24u, 40u, 64u}) {
    for (uint32_t norms = 0; norms < 4; ++norms) {
      run(norms == 0 ? 27 : 3, head_dim, norms, random, differences);
    }
  }
  return differences.status();
}
