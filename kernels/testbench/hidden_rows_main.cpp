// Testbench of hidden_rows_top: rows that ask for their hidden state, its norm, both or nothing.
#include "kernels/testbench/references.h"
#include "kernels/testbench/shapes.h"

using namespace flexllm::kernels;

extern "C" void hidden_rows_top(const Word* desc, const Word* model, Word* scratch, Word* result,
                                LaunchInfo launch, ModelInfo info, uint32_t residual);

static void put_row(const Floats& row, uint32_t at, float behind, std::vector<Word>& words) {
  for (uint32_t i = 0; i < padded(static_cast<uint32_t>(row.size())); ++i) {
    set_float(words[at + i / kFloatsPerWord], i % kFloatsPerWord, i < row.size() ? row[i] : behind);
  }
}

static void run(uint32_t rows, uint32_t hidden, std::mt19937& random, Differences& differences) {
  const uint32_t row_words = float_words(hidden);
  LaunchInfo launch = {};
  launch.rows = rows;
  launch.row_table = 2;
  launch.inputs = launch.row_table + rows;
  ModelInfo info = {};
  info.hidden = hidden;
  info.rms_eps = 1e-5f;
  info.final_norm = 3;
  const uint32_t residual = 9;
  std::vector<Word> desc(512, zero_word());
  std::vector<Word> model(16, zero_word());
  std::vector<Word> scratch(512, zero_word());
  std::vector<Word> result(1024, zero_word());
  std::vector<Word> expected(1024, zero_word());
  const Floats gain = random_row(random, hidden);
  put_row(gain, info.final_norm, 0.0f, model);
  for (uint32_t row = 0; row < rows; ++row) {
    const Floats x = random_row(random, hidden);
    put_row(x, launch.inputs + row * row_words, 7.0f, desc);
    const uint32_t flags = static_cast<uint32_t>(random() % 4);  // residual 1, final_norm 2
    const uint32_t to = 5 + 2 * row * row_words;
    Word& entry = desc[launch.row_table + row];
    set_lane(entry, row_field::flags, flags | row_flag::row_result);
    set_lane(entry, row_field::residual, to);
    set_lane(entry, row_field::final_norm, to + row_words);
    if ((flags & row_flag::residual) != 0) put_row(x, to, 0.0f, expected);
    if ((flags & row_flag::final_norm) != 0) {
      put_row(reference_norm(x, gain, info.rms_eps), to + row_words, 0.0f, expected);
    }
  }
  hidden_rows_top(desc.data(), model.data(), scratch.data(), result.data(), launch, info, residual);
  for (uint32_t w = 0; w < expected.size(); ++w) {
    differences.compare_words("result", w, expected[w], result[w]);
  }
}

int main() {
  std::mt19937 random(1);
  Differences differences;
  for (const uint32_t hidden : {4u, 68u, 172u, BenchShape::hidden + 0}) {
    run(1, hidden, random, differences);
    run(7, hidden, random, differences);
    run(32, hidden, random, differences);
  }
  return differences.status();
}
