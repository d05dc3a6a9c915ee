// Reads a launch and the model's header and says whether this build can run it (docs/launch.md). A
// kernel cannot see the sizes of its buffers: bad_offset is for the host and the twin to find.
#pragma once

#include "kernels/modules/rows.h"
#include "kernels/modules/types.h"

namespace flexllm {
namespace kernels {

inline bool within(uint32_t value, uint32_t most) { return value >= 1 && value <= most; }

// The model's header: dimensions within the maxima of K.
template <typename K>
uint32_t read_model(const Word* model, ModelInfo& info) {
  const Word first = model[0];
  const Word second = model[1];
  if (get_lane(first, model_field::magic) != kModelMagic) return launch_status::bad_magic;
  if (get_lane(first, model_field::version) != kContractVersion) return launch_status::bad_version;
  info.layers = get_lane(first, model_field::layers);
  info.hidden = get_lane(first, model_field::hidden);
  info.heads = get_lane(first, model_field::heads);
  info.kv_heads = get_lane(first, model_field::kv_heads);
  info.head_dim = get_lane(first, model_field::head_dim);
  info.ffn = get_lane(first, model_field::ffn);
  info.vocab = get_lane(first, model_field::vocab);
  info.context = get_lane(first, model_field::context);
  info.rms_eps = get_float(first, model_field::rms_eps);
  info.inv_sqrt_head_dim = get_float(first, model_field::inv_sqrt_head_dim);
  info.hadamard_block = get_lane(first, model_field::hadamard_block);
  info.hadamard_scale = get_float(first, model_field::hadamard_scale);
  const uint32_t probability_bits = get_lane(first, model_field::probability_bits);
  const uint32_t streams = get_lane(first, model_field::weight_streams);
  info.rope = get_lane(second, model_field::rope - kFieldsPerWord);
  info.layer_table = get_lane(second, model_field::layer_table - kFieldsPerWord);
  info.final_norm = get_lane(second, model_field::final_norm - kFieldsPerWord);
  info.lm_head = get_lane(second, model_field::lm_head - kFieldsPerWord);
  info.lm_head_precision = get_lane(second, model_field::lm_head_precision - kFieldsPerWord);
  if (!within(info.hidden, K::hidden) || !within(info.heads, K::heads) ||
      !within(info.kv_heads, K::kv_heads) || !within(info.head_dim, K::head_dim) ||
      !within(info.ffn, K::ffn) || !within(info.vocab, K::vocab) ||
      !within(info.context, K::context) || info.hidden % kInputsPerWord != 0 ||
      info.ffn % kInputsPerWord != 0 || info.head_dim % 8 != 0 || info.heads % info.kv_heads != 0) {
    return launch_status::beyond_maxima;
  }
  const uint32_t block = info.hadamard_block;
  if (block != 0 &&
      ((block & (block - 1)) != 0 || block > kMaxHadamardBlock || info.ffn % block != 0)) {
    return launch_status::beyond_maxima;
  }
  if (probability_bits != 8 && probability_bits != 16) return launch_status::beyond_maxima;
  info.probability_levels = probability_bits == 8 ? 255 : 65535;
  return streams == K::weight_streams ? launch_status::ok : launch_status::beyond_maxima;
}

// The rows and their pages: in range, ascending in each sequence, and how many want logits. A page
// is looked at once, however many rows of its sequence there are.
template <typename K>
uint32_t check_rows(const Word* desc, const ModelInfo& info, uint32_t sequences, uint32_t pages,
                    uint32_t slots, LaunchInfo& launch) {
  uint32_t next[K::rows];  // of each sequence: the position behind its last row
  for (uint32_t s = 0; s < sequences; ++s) {
    HLS_TRIPS(1, K::rows)
    next[s] = 0;
  }
  launch.logits_rows = 0;
  for (uint32_t i = 0; i < launch.rows; ++i) {
    HLS_TRIPS(1, K::rows)
    const RowInfo row = unpack_row(desc[launch.row_table + i], i);
    if (row.sequence >= sequences || row.position >= info.context) return launch_status::bad_row;
    const uint32_t behind = next[row.sequence];
    if (row.position < behind) return launch_status::bad_row;
    next[row.sequence] = row.position + 1;
    if ((row.flags & row_flag::needs_logits) != 0) {
      const bool has_target = (row.flags & row_flag::target_logprob) != 0;
      if (has_target && row.target >= info.vocab) return launch_status::bad_row;
      if (row.logits_slot >= slots) return launch_status::bad_row;
      ++launch.logits_rows;
    }
    Word ids = zero_word();
    const uint32_t first = divide_up(behind, kPageTokens);
    for (uint32_t page = first; page * kPageTokens <= row.position; ++page) {
      HLS_TRIPS(1, divide_up(K::context, kPageTokens))
      if (page == first || page % kFieldsPerWord == 0) {
        ids = desc[launch.page_tables + row.sequence * launch.page_table_stride +
                   page / kFieldsPerWord];
      }
      if (get_lane(ids, page % kFieldsPerWord) >= pages) return launch_status::bad_page;
    }
  }
  return launch_status::ok;
}

// Fills `launch` and `info`; the launch_status.
template <typename K>
uint32_t read_launch(const Word* desc, const Word* model, LaunchInfo& launch, ModelInfo& info) {
  const Word first = desc[0];
  launch.id = get_lane(first, launch_field::id);
  launch.rows = 0;
  if (get_lane(first, launch_field::magic) != kLaunchMagic) return launch_status::bad_magic;
  if (get_lane(first, launch_field::version) != kContractVersion) return launch_status::bad_version;
  const uint32_t model_status = read_model<K>(model, info);
  if (model_status != launch_status::ok) return model_status;
  launch.layer_begin = get_lane(first, launch_field::layer_begin);
  launch.layer_end = get_lane(first, launch_field::layer_end);
  if (launch.layer_begin > launch.layer_end || launch.layer_end > info.layers) {
    return launch_status::bad_layers;
  }
  if (!Precision::valid(info.lm_head_precision)) return launch_status::bad_offset;
  for (uint32_t layer = launch.layer_begin; layer < launch.layer_end; ++layer) {
    HLS_TRIPS(1, 64)
    const Word record = model[info.layer_table + layer];
    if (!Precision::valid(get_lane(record, layer_field::qkv_precision)) ||
        !Precision::valid(get_lane(record, layer_field::o_precision)) ||
        !Precision::valid(get_lane(record, layer_field::gate_up_precision)) ||
        !Precision::valid(get_lane(record, layer_field::down_precision))) {
      return launch_status::bad_offset;
    }
  }
  launch.rows = get_lane(first, launch_field::rows);
  const uint32_t sequences = get_lane(first, launch_field::sequences);
  launch.row_table = get_lane(first, launch_field::row_table);
  launch.page_tables = get_lane(first, launch_field::page_tables);
  launch.page_table_stride = get_lane(first, launch_field::page_table_stride);
  launch.inputs = get_lane(first, launch_field::inputs);
  launch.logits = get_lane(first, launch_field::logits);
  launch.work = get_lane(first, launch_field::work);
  if (launch.rows > K::rows || sequences > K::rows ||
      get_lane(first, launch_field::kv_streams) != K::kv_streams) {
    return launch_status::beyond_maxima;
  }
  static_assert(launch_field::work < kFieldsPerWord, "fields up to work are in the first word");
  return check_rows<K>(desc, info, sequences, get_lane(first, launch_field::kv_pages),
                       get_lane(first, launch_field::logits_slots), launch);
}

// The completion record: the last word that a launch writes.
inline void complete(Word* result, uint32_t id, uint32_t status, uint32_t rows) {
  Word record = zero_word();
  set_lane(record, completion_field::magic, kResultMagic);
  set_lane(record, completion_field::version, kContractVersion);
  set_lane(record, completion_field::id, id);
  set_lane(record, completion_field::status, status);
  set_lane(record, completion_field::rows, rows);
  result[0] = record;
}

}  // namespace kernels
}  // namespace flexllm
