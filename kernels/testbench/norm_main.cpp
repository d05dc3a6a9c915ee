// Testbench of norm_top: rows of many sizes against docs/numerics.md, written as plain loops.
#include "kernels/testbench/references.h"

using namespace flexllm::kernels;

extern "C" void norm_top(uint32_t rows, uint32_t size, float eps, Stream<Word>& gains,
                         Stream<Word>& in, Stream<Word>& out);

int main() {
  std::mt19937 random(2);
  Differences differences;
  const uint32_t rows = 3;
  for (const uint32_t size : {4u, 12u, 16u, 20u, 64u, 68u, 172u, 576u, 2048u}) {
    Queue<Word> gains("gains");
    Queue<Word> in("in");
    Queue<Word> out("out");
    const Floats gain = random_row(random, size);
    send_row(gain, gains);
    std::vector<Floats> sent;
    for (uint32_t row = 0; row < rows; ++row) {
      sent.push_back(row == 1 ? Floats(size, 0.0f) : random_row(random, size));
      send_row(sent.back(), in);
    }
    norm_top(rows, size, 1e-5f, gains, in, out);
    for (const Floats& row : sent) {
      differences.compare_rows(reference_norm(row, gain, 1e-5f), receive_row(size, out));
    }
    differences.expect_empty("out", out.empty());
  }
  return differences.status();
}
