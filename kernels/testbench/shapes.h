// The sizes that the testbenches' tops are made for: small, so that csim and cosim take minutes.
// C++14, for HLS compilers too.
#pragma once

#include <cstdint>

namespace flexllm {
namespace kernels {

struct BenchShape {
  static constexpr uint32_t rows = 32;
  static constexpr uint32_t panel_rows = 16;
  static constexpr uint32_t hidden = 192;
  static constexpr uint32_t ffn = 192;
  static constexpr uint32_t heads = 6;
  static constexpr uint32_t kv_heads = 3;
  static constexpr uint32_t head_dim = 64;
  static constexpr uint32_t context = 128;
  static constexpr uint32_t vocab = 512;
  static constexpr uint32_t weight_streams = 2;
  static constexpr uint32_t weight_ports = 2;
  static constexpr uint32_t arrays = 2;
  static constexpr uint32_t kv_streams = 2;
  static constexpr uint32_t kv_ports = 2;
  static constexpr uint32_t attention_rows = 2;
  static constexpr uint32_t score_tokens = 64;
  static constexpr uint32_t logits_parallel = 4;
  static constexpr uint32_t head_parallel = 2;
  static constexpr uint32_t kv_parallel = 16;
  static constexpr uint32_t output_parallel = 8;
};

// Everything on one port, arenas in twos.
struct OnePort : BenchShape {
  static constexpr uint32_t weight_ports = 1;
  static constexpr uint32_t kv_ports = 1;
};

struct BenchArray {
  static constexpr uint32_t token_parallel = 4;
  static constexpr uint32_t row_parallel = 16;
  static constexpr uint32_t input_parallel = 2;
};

constexpr uint32_t kBenchInputs = 192;  // most of a matrix

}  // namespace kernels
}  // namespace flexllm
