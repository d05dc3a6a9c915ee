// Testbench of hadamard_top: rows in blocks of every size against plain loops.
#include "kernels/testbench/references.h"

using namespace flexllm::kernels;

extern "C" void hadamard_top(uint32_t rows, uint32_t size, uint32_t block, float scale,
                             Stream<Word>& in, Stream<Word>& out);

int main() {
  std::mt19937 random(1);
  Differences differences;
  const uint32_t rows = 3;
  for (const uint32_t size : {4u, 172u, 512u, 1536u}) {
    for (uint32_t block = 0; block <= kMaxHadamardBlock && (block == 0 || size % block == 0);
         block = block == 0 ? 1 : 2 * block) {
      Queue<Word> in("in");
      Queue<Word> out("out");
      std::vector<Floats> sent;
      for (uint32_t row = 0; row < rows; ++row) {
        sent.push_back(random_row(random, size));
        send_row(sent.back(), in);
      }
      hadamard_top(rows, size, block, 0.0625f, in, out);
      for (const Floats& row : sent) {
        differences.compare_rows(reference_hadamard(row, block, 0.0625f), receive_row(size, out));
      }
      differences.expect_empty("out", out.empty());
    }
  }
  return differences.status();
}
