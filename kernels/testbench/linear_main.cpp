// Testbench of linear_top: matrices of every precision times rows of floats, from the arenas to
// floats, against plain loops.
#include "kernels/testbench/matrix.h"
#include "kernels/testbench/plain_quantizers.h"
#include "kernels/testbench/tiles.h"

using namespace flexllm::kernels;

extern "C" void linear_top(const Word* arena0, const Word* arena1, Stage stage, Stream<Word>& rows,
                           Stream<TileValues>& tiles);

template <uint32_t Bits>
static QuantizedRows quantized(const std::vector<Floats>& rows) {
  QuantizedRows x;
  for (const Floats& row : rows) {
    const PlainScheme<Bits, false> scale(row);
    x.scale.push_back(module_scale(scale));
    x.q.emplace_back();
    for (const float v : row) x.q.back().push_back(static_cast<uint32_t>(scale.encode(v)));
  }
  return x;
}

static void run(uint32_t rows, uint32_t outputs, uint32_t inputs, const Precision& precision,
                std::mt19937& random, Differences& differences) {
  const Matrix m = random_matrix(random, outputs, inputs, precision);
  const Stage stage = stage_of(m, rows, 3);
  std::vector<std::vector<Word>> arenas = arenas_of(m, stage.weights, BenchShape::weight_streams);
  for (std::vector<Word>& arena : arenas) arena.resize(1024, zero_word());
  Queue<Word> in("in");
  Queue<TileValues> tiles("tiles");
  std::vector<Floats> sent;
  for (uint32_t row = 0; row < rows; ++row) {
    sent.push_back(random_row(random, inputs));
    send_row(sent.back(), in);
  }
  linear_top(arenas[0].data(), arenas[1].data(), stage, in, tiles);
  const QuantizedRows x = precision.levels() == 15 ? quantized<4>(sent) : quantized<8>(sent);
  for (const TilePlace& at : tile_places<BenchShape>(stage)) {
    const TileValues tile = tiles.read();
    for (uint32_t r = 0; r < kTileRows; ++r) {
      const uint32_t output = at.tile * kTileRows + r;
      const int64_t sum = exact_sum(m, x.q[at.row], output);
      differences.compare_bits("output", inputs, output,
                               bits_of(reference_linear(m, sum, x.scale[at.row], output)),
                               bits_of(tile.value[r]));
    }
  }
  differences.expect_empty("in", in.empty());
  differences.expect_empty("tiles", tiles.empty());
}

int main() {
  std::mt19937 random(1);
  Differences differences;
  for (uint32_t bits = 0; bits < 16; ++bits) {
    run(1 + bits % 5, 100, 68, precision_number(bits), random, differences);
    run(27, 20 + 11 * bits, kBenchInputs, precision_number(bits), random, differences);
  }
  return differences.status();
}
