// For the test against the `gguf` package: rounds a row through a block format.
//
//   quantizer_run_round_blocks FORMAT < binary32 values > binary32 values
#include <cstdio>
#include <exception>
#include <vector>

#include "quantizer/block_formats/block_formats.h"

int main(int argc, char** argv) {
  if (argc != 2) return 2;
  std::vector<float> row;
  float value = 0;
  while (std::fread(&value, sizeof value, 1, stdin) == 1) row.push_back(value);
  try {
    flexllm::quantizer::round_to_blocks(flexllm::quantizer::parse_block_format(argv[1]), row);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
  return std::fwrite(row.data(), sizeof(float), row.size(), stdout) == row.size() ? 0 : 1;
}
