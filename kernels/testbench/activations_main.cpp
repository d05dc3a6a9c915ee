// Testbench of activations_top: the words that each array gets, against plain loops.
#include "kernels/testbench/matrix.h"
#include "kernels/testbench/tiles.h"

using namespace flexllm::kernels;

extern "C" void activations_top(Stage stage, Stream<Word>& rows,
                                Queue<Word> (&out)[BenchShape::arrays],
                                Queue<Word> (&q_sums)[BenchShape::arrays]);

static void run(uint32_t rows, uint32_t tiles, uint32_t inputs, const Precision& precision,
                std::mt19937& random, Differences& differences) {
  const QuantizedRows x = random_quantized(random, rows, inputs, precision.levels());
  Stage stage = {};
  stage.rows = rows;
  stage.inputs = inputs;
  stage.tiles = tiles;
  stage.precision = precision.encode();
  Queue<Word> quantized("quantized");
  Queue<Word> out[BenchShape::arrays];
  Queue<Word> q_sums[BenchShape::arrays];
  send_quantized(x, quantized);
  activations_top(stage, quantized, out, q_sums);
  const auto compare_block = [&](uint32_t array, uint32_t block) {
    for (uint32_t plane = 0; plane < precision.weight_planes; ++plane) {
      for (uint32_t w = 0; w < inputs / kInputsPerWord; ++w) {
        differences.compare_words("activations", w, activation_word(x, block, w),
                                  out[array].read());
      }
    }
    for (uint32_t group = 0; group < divide_up(inputs, kGroupInputs); ++group) {
      differences.compare_words("sums of q", group, group_word(x, block, group),
                                q_sums[array].read());
    }
  };
  for (uint32_t array = 0; array < BenchShape::arrays; ++array) {
    for (const uint32_t panel : panels_of<BenchShape>(rows)) {
      for (uint32_t tile = array; tile < tiles; tile += BenchShape::arrays) {
        for (const uint32_t block : blocks_of<BenchShape>(panel, rows)) compare_block(array, block);
      }
    }
    differences.expect_empty("out", out[array].empty());
    differences.expect_empty("q_sums", q_sums[array].empty());
  }
  differences.expect_empty("quantized", quantized.empty());
}

int main() {
  std::mt19937 random(1);
  Differences differences;
  for (uint32_t bits = 0; bits < 4; ++bits) {
    for (const uint32_t inputs : {4u, 60u, 68u, kBenchInputs}) {
      for (const uint32_t rows : {1u, 16u, 27u}) {
        run(rows, 1 + rows % 4, inputs, precision_number(bits), random, differences);
      }
    }
  }
  return differences.status();
}
