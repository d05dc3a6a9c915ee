// The way of q, k and v from tiles to query rows and page records, for csim, csynth and cosim.
#include "kernels/modules/heads.h"
#include "kernels/testbench/ports.h"
#include "kernels/testbench/shapes.h"

using namespace flexllm::kernels;

extern "C" void heads_top(Stage stage, ModelInfo info, Stream<TileValues>& tiles,
                          Stream<Word>& gains, Stream<Word>& rope, Stream<RowInfo>& rows,
                          Stream<Store>& queries, Queue<PageStore> (&pages)[BenchShape::kv_ports]) {
  HLS_DATAFLOW("heads");
  Fifo<HeadTag, 4> tags("tags");
  Fifo<Word, 16> words("words");
  Fifo<HeadTag, 4> query_tags("query_tags");
  Fifo<Word, 16> query_words("query_words");
  Fifo<HeadTag, 4> kv_tags("kv_tags");
  Fifo<Word, 16> kv_words("kv_words");
  HLS_TASK(assemble_heads<BenchShape>(stage, info.head_dim, tiles, tags, words));
  HLS_TASK(rotate_heads<BenchShape>(stage, info, gains, rope, tags, words, query_tags, query_words,
                                    kv_tags, kv_words));
  HLS_TASK(pack_queries<BenchShape>(stage, info, query_tags, query_words, queries));
  HLS_TASK(quantize_kv<BenchShape>(stage, info, rows, kv_tags, kv_words, pages));
  HLS_DATAFLOW_END();
}
