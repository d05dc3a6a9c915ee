// Testbench of weights_top: every word of the tiles of each array, planes once a block of rows.
#include "kernels/testbench/matrix.h"
#include "kernels/testbench/tiles.h"

using namespace flexllm::kernels;

extern "C" void weights_top(const Word* arena0, const Word* arena1, Stage stage,
                            Queue<Word> (&parameters)[OnePort::arrays],
                            Queue<Word> (&multipliers)[OnePort::arrays],
                            Queue<Word> (&planes)[OnePort::arrays]);

static void run(uint32_t rows, uint32_t outputs, uint32_t inputs, const Precision& precision,
                std::mt19937& random, Differences& differences) {
  const Matrix m = random_matrix(random, outputs, inputs, precision);
  const Stage stage = stage_of(m, rows, 5);
  const TileLayout layout = m.layout();
  std::vector<std::vector<Word>> arenas = arenas_of(m, stage.weights, OnePort::weight_streams);
  for (std::vector<Word>& arena : arenas) arena.resize(1024, zero_word());
  Queue<Word> parameters[OnePort::arrays];
  Queue<Word> multipliers[OnePort::arrays];
  Queue<Word> planes[OnePort::arrays];
  weights_top(arenas[0].data(), arenas[1].data(), stage, parameters, multipliers, planes);
  for (uint32_t array = 0; array < OnePort::arrays; ++array) {
    const auto compare = [&](const char* what, uint32_t tile, uint32_t begin, uint32_t end,
                             Stream<Word>& words) {
      for (uint32_t w = begin; w < end; ++w) {
        differences.compare_words(what, w, tile_word(m, tile, w), words.read());
      }
    };
    for (const uint32_t panel : panels_of<OnePort>(rows)) {
      for (uint32_t tile = array; tile < stage.tiles; tile += OnePort::arrays) {
        compare("parameters", tile, 0, layout.multipliers(), parameters[array]);
        compare("multipliers", tile, layout.multipliers(), layout.planes(), multipliers[array]);
        for (size_t block = 0; block < blocks_of<OnePort>(panel, rows).size(); ++block) {
          compare("planes", tile, layout.planes(), layout.words(), planes[array]);
        }
      }
    }
    differences.expect_empty("parameters", parameters[array].empty());
    differences.expect_empty("multipliers", multipliers[array].empty());
    differences.expect_empty("planes", planes[array].empty());
  }
}

int main() {
  std::mt19937 random(1);
  Differences differences;
  for (uint32_t bits = 0; bits < 16; ++bits) {
    for (const uint32_t inputs : {4u, 68u, kBenchInputs}) {
      run(bits % 2 == 0 ? 5 : 32, 20 + 13 * bits, inputs, precision_number(bits), random,
          differences);
    }
  }
  return differences.status();
}
