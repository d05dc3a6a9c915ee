// Testbench of rope_top: heads of many sizes, the last of each row unrotated, against the formula.
#include "kernels/testbench/references.h"

using namespace flexllm::kernels;

extern "C" void rope_top(uint32_t rows, uint32_t heads, uint32_t head_dim, uint32_t rotated,
                         Stream<Word>& tables, Stream<HeadTag>& tags, Stream<Word>& in,
                         Stream<HeadTag>& out_tags, Stream<Word>& out);

int main() {
  std::mt19937 random(1);
  Differences differences;
  const uint32_t rows = 5;
  const uint32_t row_heads = 4;
  const uint32_t rotated = 3;
  for (const uint32_t head_dim : {8u, 16u, 24u, 40u, 64u, 80u, 128u}) {
    Queue<Word> tables("tables");
    Queue<HeadTag> tags("tags");
    Queue<Word> in("in");
    Queue<HeadTag> out_tags("out_tags");
    Queue<Word> out("out");
    std::vector<Floats> table;
    for (uint32_t row = 0; row < rows; ++row) {
      table.push_back(random_row(random, head_dim));
      send_row(table.back(), tables);
    }
    std::vector<Floats> sent;
    for (uint32_t i = 0; i < rows * row_heads; ++i) {
      sent.push_back(random_row(random, head_dim));
      tags.write(HeadTag{i % rows, i / rows});
      send_row(sent.back(), in);
    }
    rope_top(rows, rows * row_heads, head_dim, rotated, tables, tags, in, out_tags, out);
    for (uint32_t i = 0; i < rows * row_heads; ++i) {
      const HeadTag tag = out_tags.read();
      differences.compare_bits("row of head", head_dim, i, i % rows, tag.row);
      differences.compare_bits("head", head_dim, i, i / rows, tag.head);
      const Floats& x = sent[i];
      differences.compare_rows(tag.head < rotated ? reference_rope(x, table[i % rows]) : x,
                               receive_row(head_dim, out));
    }
    differences.expect_empty("out", out.empty());
  }
  return differences.status();
}
