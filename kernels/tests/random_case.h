// Random small models and launches for the tests of the kernels and the twins: packed matrices,
// model buffer, pages with a history, descriptor, all laid out straight from docs/weight-layout.md,
// docs/kv-cache.md and docs/launch.md. Everything is a pure function of the seed. One thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <random>
#include <span>
#include <vector>

#include "kernels/contract/launch.h"
#include "kernels/twin/twin.h"

namespace flexllm::kernels {

// 64 bytes of card memory.
struct alignas(kWordBytes) CardWord {
  uint32_t field[kFieldsPerWord];
};
using CardBuffer = std::vector<CardWord>;

float* floats_at(CardBuffer& buffer, uint32_t word);
uint32_t* fields_at(CardBuffer& buffer, uint32_t word);
int8_t* bytes_at(CardBuffer& buffer, uint32_t word);

// The maxima of u280-combined's prefill kernel: what tests run with unless they mean others.
inline constexpr twin::Maxima kCombinedMaxima{.rows = 256,
                                              .hidden = 4096,
                                              .ffn = 16384,
                                              .heads = 32,
                                              .kv_heads = 32,
                                              .head_dim = 128,
                                              .context = 131072,
                                              .vocab = 262144};

// Dimensions and precisions of a model; the parameters are drawn by build_model.
struct ModelShape {
  uint32_t layers = 1;
  uint32_t hidden = 64;
  uint32_t heads = 1;
  uint32_t kv_heads = 1;
  uint32_t head_dim = 64;
  uint32_t ffn = 64;
  uint32_t vocab = 32;
  uint32_t context = 64;
  uint32_t hadamard_block = 0;
  uint32_t probability_bits = 16;
  bool head_norms = false;  // q/k norms in every other layer
  Precision qkv{1, 1, false, false};
  Precision o{1, 1, false, false};
  Precision gate_up{1, 1, false, false};
  Precision down{1, 1, false, false};
  Precision lm_head{2, 2, false, false};

  uint32_t attention() const { return heads * head_dim; }
  uint32_t qkv_rows() const { return (heads + 2 * kv_heads) * head_dim; }
};

// Bounds of random_shape and random_launch.
struct CaseLimits {
  uint32_t rows = 16;
  uint32_t sequences = 4;
  uint32_t hidden = 128;
  uint32_t ffn = 192;
  uint32_t heads = 8;
  uint32_t kv_heads = 4;
  uint32_t head_dim = 32;
  uint32_t layers = 2;
  uint32_t context = 160;
  uint32_t vocab = 300;
};

// Rows of one sequence in a launch: positions history..history + rows - 1.
struct SequenceRows {
  uint32_t history = 0;
  uint32_t rows = 1;
};

struct LaunchShape {
  std::vector<SequenceRows> sequences;
  uint32_t layer_begin = 0;
  uint32_t layer_end = 1;
  bool interleave = false;   // rows of the sequences in turn instead of one sequence after another
  bool outputs = true;       // flags drawn for every row
  uint32_t result_rows = 0;  // else: the last so many rows have a row result, and no other output
  bool striped = false;      // pages go round the KV streams, as the host deals them; else anywhere
};

ModelShape random_shape(std::mt19937& random, const CaseLimits& limits);
LaunchShape random_launch(std::mt19937& random, const CaseLimits& limits, const ModelShape& shape);

// The buffers of one card, with a model loaded and a launch ready.
struct Case {
  CardBuffer desc, model, result, scratch;
  std::vector<CardBuffer> weights;  // one per weight stream
  std::vector<CardBuffer> kv;       // one per KV stream

  // Views that stay valid until the case is copied, moved or changed.
  twin::Buffers buffers();

 private:
  std::vector<twin::Span> weight_spans_, kv_spans_;
};

// Arenas, gains, tables. Weights and scales are such that activations stay of the order of one.
void build_model(std::mt19937& random, const ModelShape& shape, uint32_t weight_streams,
                 Case& result);

// Descriptor, input rows, pages. Every page holds noise (not-a-number scales included) except the
// tokens of the histories; result and scratch hold noise too.
void build_launch(std::mt19937& random, const ModelShape& shape, const LaunchShape& launch,
                  uint32_t kv_streams, Case& result);

Case random_case(uint32_t seed, const CaseLimits& limits, uint32_t weight_streams,
                 uint32_t kv_streams);

}  // namespace flexllm::kernels
