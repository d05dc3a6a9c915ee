// Testbench of norm_top: rows of many sizes against docs/numerics.md, written as plain loops.
#include "kernels/testbench/testbench.h"

using namespace flexllm::kernels;

extern "C" void norm_top(uint32_t rows, uint32_t size, float eps, Stream<Word>& gains,
                         Stream<Word>& in, Stream<Word>& out);

static Floats reference(const Floats& x, const Floats& gain, float eps) {
  Floats partial(64, 0.0f);
  for (size_t i = 0; i < x.size(); ++i) partial[i % 64] = partial[i % 64] + x[i] * x[i];
  for (size_t half = 32; half > 0; half /= 2) {
    for (size_t i = 0; i < half; ++i) partial[i] = partial[i] + partial[i + half];
  }
  const float mean = partial[0] / static_cast<float>(x.size());
  const float r = reciprocal_sqrt(mean + eps);
  Floats y(x.size());
  for (size_t i = 0; i < x.size(); ++i) {
    const float scaled = x[i] * r;
    y[i] = scaled * gain[i];
  }
  return y;
}

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
      differences.compare_rows(reference(row, gain, 1e-5f), receive_row(size, out));
    }
    differences.expect_empty("out", out.empty());
  }
  return differences.status();
}
