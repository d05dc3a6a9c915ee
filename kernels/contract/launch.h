// What host and kernels say to each other: the model buffer (constant), the launch descriptor (one
// per launch) and the result buffer. Described in docs/launch.md.
//
// Everything is little-endian uint32 fields in 64-byte words (16 fields); floats are stored as
// their bits; offsets count words from the start of the buffer that the comment names. C++14.
#pragma once

#include <cstdint>

#include "kernels/contract/layout.h"

namespace flexllm {
namespace kernels {

constexpr uint32_t kFieldsPerWord = 16;
constexpr uint32_t kContractVersion = 1;        // numerics, layout and launch together
constexpr uint32_t kModelMagic = 0x4d584c46u;   // "FLXM"
constexpr uint32_t kLaunchMagic = 0x4c584c46u;  // "FLXL"
constexpr uint32_t kResultMagic = 0x52584c46u;  // "FLXR"
constexpr uint32_t kTopLogits = 64;             // largest logits of a row result

// Header of the model buffer: words 0 and 1.
namespace model_field {
enum : uint32_t {
  magic = 0,
  version = 1,
  layers = 2,
  hidden = 3,
  heads = 4,
  kv_heads = 5,
  head_dim = 6,
  ffn = 7,
  vocab = 8,
  context = 9,             // rows of the RoPE table
  rms_eps = 10,            // float
  inv_sqrt_head_dim = 11,  // float
  hadamard_block = 12,     // R4 block before down_proj, a power of two up to 512; 0: none
  hadamard_scale = 13,     // float, 1 / sqrt(block)
  probability_bits = 14,   // 8 or 16
  weight_streams = 15,     // arenas that the weights are dealt to
  rope = 16,               // model buffer: float rows of rope_words(head_dim)
  layer_table = 17,        // model buffer: one word per layer, layer_field
  final_norm = 18,         // model buffer: float[hidden]
  lm_head = 19,            // arenas
  lm_head_precision = 20,  // Precision::encode()
  words = 21,              // size of the model buffer
  fields = 32
};
}

// One word per layer.
namespace layer_field {
enum : uint32_t {
  qkv = 0,      // arenas; rows q, then k, then v
  o = 1,        // arenas
  gate_up = 2,  // arenas; gate and up tiles alternate
  down = 3,     // arenas
  qkv_precision = 4,
  o_precision = 5,
  gate_up_precision = 6,
  down_precision = 7,
  attention_norm = 8,  // model buffer: float[hidden]
  ffn_norm = 9,        // model buffer: float[hidden]
  q_norm = 10,         // model buffer: float[head_dim]; 0: none
  k_norm = 11,
  fields = 16
};
}

// Header of a launch: words 0 and 1 of the descriptor buffer.
namespace launch_field {
enum : uint32_t {
  magic = 0,
  version = 1,
  id = 2,  // echoed in the completion record
  layer_begin = 3,
  layer_end = 4,  // exclusive
  rows = 5,
  sequences = 6,          // page tables
  row_table = 7,          // descriptor: one word per row, row_field
  page_tables = 8,        // descriptor: uint32 page ids, one table per sequence
  page_table_stride = 9,  // words between page tables
  inputs = 10,            // descriptor: float rows of float_words(hidden)
  kv_streams = 11,        // arenas that pages are dealt to
  kv_pages = 12,          // pages that exist; ids are below it
  logits = 13,            // scratch: logits rows of logits_words(vocab)
  logits_slots = 14,      // rows that fit there
  work = 15,              // scratch: work space of the kernel, work_words() long
  result_words = 16,      // size of the result buffer
  fields = 32
};
}

// One word per row. Rows of one sequence stand in ascending position. A row attends to positions
// 0..position of its sequence; those not in this launch are in its pages already.
namespace row_field {
enum : uint32_t {
  sequence = 0,  // index of its page table
  position = 1,
  flags = 2,        // RowFlag
  target = 3,       // vocabulary id for target_logprob
  residual = 4,     // result: float[hidden], with RowFlag residual
  final_norm = 5,   // result: float[hidden], with RowFlag final_norm
  row_result = 6,   // result: row result record, with target_logprob or row_result
  logits_slot = 7,  // where its logits go; distinct among the rows that have any
  fields = 16
};
}

namespace row_flag {
enum : uint32_t {
  residual = 1,        // hidden state after layer_end
  final_norm = 2,      // the same after the final norm
  target_logprob = 4,  // log-probability of `target`
  row_result = 8,      // extrema, log-sum-exp and the 64 largest logits
  needs_logits = target_logprob | row_result
};
}

// Word 0 of the result buffer: written last.
namespace completion_field {
enum : uint32_t { magic = 0, version = 1, id = 2, status = 3, rows = 4, fields = 16 };
}

// Why a launch was refused. Nothing but the completion record is written then.
namespace launch_status {
enum : uint32_t {
  ok = 0,
  bad_magic = 1,      // model or descriptor is not one
  bad_version = 2,    // another contract version
  beyond_maxima = 3,  // a dimension that this build of the kernel does not have
  bad_layers = 4,     // layer range
  bad_row = 5,        // sequence, position, target or slot out of range
  bad_page = 6,       // a page id out of range
  bad_offset = 7      // something lies outside its buffer (checked where sizes are known)
};
}

// A row result: one word of fields, then float[64] logits and uint32[64] ids, sorted by logit
// descending, ties by id ascending. With fewer than 64 ids the rest is -infinity and 0xffffffff.
// A row with target_logprob alone has only the first word.
namespace result_field {
enum : uint32_t {
  argmax = 0,
  max = 1,             // float
  log_sum_exp = 2,     // float
  target_logprob = 3,  // float; +0 without the flag
  fields = 16
};
}
constexpr uint32_t kRowResultWords = 1 + 2 * (kTopLogits / kFieldsPerWord);

// Scratch words that a kernel needs for a launch of `rows` rows, apart from the logits: residual,
// query, attention output and feed-forward rows.
constexpr uint32_t work_words(uint32_t rows, uint32_t hidden, uint32_t attention, uint32_t ffn) {
  return rows * (2 * float_words(hidden) + 2 * float_words(attention) + float_words(ffn));
}

}  // namespace kernels
}  // namespace flexllm
