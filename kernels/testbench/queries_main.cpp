// Testbench of queries_top: heads of many sizes, some of them zero, against plain loops.
#include "kernels/testbench/plain_quantizers.h"
#include "kernels/testbench/shapes.h"

using namespace flexllm::kernels;

extern "C" void queries_top(uint32_t rows, ModelInfo info, Stream<Word>& in,
                            Queue<Word> (&words)[BenchShape::kv_ports],
                            Queue<float> (&factors)[BenchShape::kv_ports]);

int main() {
  std::mt19937 random(1);
  Differences differences;
  const uint32_t rows = 3;
  for (const uint32_t head_dim : {8u, 16u, 24u, 40u, 64u}) {
    ModelInfo info = {};
    info.heads = 5;
    info.kv_heads = 1;
    info.head_dim = head_dim;
    info.inv_sqrt_head_dim = 0.125f;
    Queue<Word> in("in");
    Queue<Word> words[BenchShape::kv_ports];
    Queue<float> factors[BenchShape::kv_ports];
    std::vector<Floats> heads;
    for (uint32_t row = 0; row < rows; ++row) {
      Floats whole;
      for (uint32_t head = 0; head < info.heads; ++head) {
        heads.push_back(head == row ? Floats(head_dim, 0.0f) : random_row(random, head_dim));
        whole.insert(whole.end(), heads.back().begin(), heads.back().end());
      }
      send_row(whole, in);
    }
    queries_top(rows, info, in, words, factors);
    for (uint32_t port = 0; port < BenchShape::kv_ports; ++port) {
      for (const Floats& head : heads) {
        const PlainScheme<8, true> scale(head);
        differences.compare_bits("factor", head_dim, port,
                                 bits_of(scale.scale * info.inv_sqrt_head_dim),
                                 bits_of(factors[port].read()));
        compare_numbers(
            head, [&](uint32_t) { return scale; }, words[port], differences);
      }
      differences.expect_empty("words", words[port].empty());
      differences.expect_empty("factors", factors[port].empty());
    }
  }
  return differences.status();
}
