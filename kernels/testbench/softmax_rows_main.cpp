// Testbench of softmax_rows_top: rows of many sizes against the formula.
#include "kernels/testbench/references.h"

using namespace flexllm::kernels;

extern "C" void softmax_rows_top(uint32_t rows, uint32_t size, Stream<Word>& in, Stream<Word>& out);

int main() {
  std::mt19937 random(1);
  Differences differences;
  const uint32_t rows = 3;
  for (const uint32_t size : {4u, 12u, 16u, 20u, 64u, 68u, 172u, 1024u}) {
    Queue<Word> in("in");
    Queue<Word> out("out");
    std::vector<Floats> sent;
    for (uint32_t row = 0; row < rows; ++row) {
      sent.push_back(row == 1 ? Floats(size, -3.5f) : random_row(random, size));
      send_row(sent.back(), in);
    }
    softmax_rows_top(rows, size, in, out);
    for (const Floats& row : sent) {
      Floats expected = exponentials(row);
      const float inverse = 1.0f / vector_sum(size, [&](uint32_t i) { return expected[i]; });
      for (float& x : expected) x = x * inverse;
      differences.compare_rows(expected, receive_row(size, out));
    }
    differences.expect_empty("out", out.empty());
  }
  return differences.status();
}
