#include "kernels/twin/launch_view.h"

#include <algorithm>

#include "kernels/contract/numerics.h"

namespace flexllm::kernels::twin {
namespace {

const uint32_t* fields_at(const Span& buffer, uint32_t word) {
  return reinterpret_cast<const uint32_t*>(buffer.data + size_t{word} * kWordBytes);
}

// True if `words` words from `word` on lie inside the buffer.
bool inside(const Span& buffer, uint64_t word, uint64_t words) {
  const uint64_t size = buffer.bytes / kWordBytes;
  return word <= size && words <= size - word;
}

bool floats_at(const Span& buffer, uint32_t word, uint64_t floats, const float*& out) {
  if (!inside(buffer, word, (floats + kFloatsPerWord - 1) / kFloatsPerWord)) return false;
  out = reinterpret_cast<const float*>(buffer.data + size_t{word} * kWordBytes);
  return true;
}

bool words_at(const Span& buffer, uint32_t word, uint64_t words, uint32_t*& out) {
  if (!inside(buffer, word, words)) return false;
  out = reinterpret_cast<uint32_t*>(buffer.data + size_t{word} * kWordBytes);
  return true;
}

bool read_matrix(std::span<const Span> weights, uint32_t offset, uint32_t precision_bits,
                 uint32_t tiles, uint32_t inputs, Matrix& matrix) {
  if (!Precision::valid(precision_bits)) return false;
  const Precision precision = Precision::decode(precision_bits);
  matrix.offset = offset;
  matrix.tiles = tiles;
  matrix.layout = TileLayout{inputs, precision};
  const uint64_t per_stream = divide_up(tiles, static_cast<uint32_t>(weights.size()));
  return std::all_of(weights.begin(), weights.end(), [&](const Span& arena) {
    return inside(arena, offset, per_stream * matrix.layout.words());
  });
}

uint32_t read_dimensions(const uint32_t* model, const Maxima& maxima, Model& out) {
  out.hidden = model[model_field::hidden];
  out.heads = model[model_field::heads];
  out.kv_heads = model[model_field::kv_heads];
  out.head_dim = model[model_field::head_dim];
  out.ffn = model[model_field::ffn];
  out.vocab = model[model_field::vocab];
  out.context = model[model_field::context];
  out.rms_eps = float_of(model[model_field::rms_eps]);
  out.inv_sqrt_head_dim = float_of(model[model_field::inv_sqrt_head_dim]);
  out.hadamard_block = model[model_field::hadamard_block];
  out.hadamard_scale = float_of(model[model_field::hadamard_scale]);
  const auto within = [](uint32_t value, uint32_t most) { return value >= 1 && value <= most; };
  if (!within(out.hidden, maxima.hidden) || !within(out.heads, maxima.heads) ||
      !within(out.kv_heads, maxima.kv_heads) || !within(out.head_dim, maxima.head_dim) ||
      !within(out.ffn, maxima.ffn) || !within(out.vocab, maxima.vocab) ||
      !within(out.context, maxima.context) || out.hidden % 4 != 0 || out.ffn % 4 != 0 ||
      out.head_dim % 8 != 0 || out.heads % out.kv_heads != 0) {
    return launch_status::beyond_maxima;
  }
  const uint32_t block = out.hadamard_block;
  if (block != 0 && ((block & (block - 1)) != 0 || block > 512 || out.ffn % block != 0)) {
    return launch_status::beyond_maxima;
  }
  const uint32_t bits = model[model_field::probability_bits];
  if (bits != 8 && bits != 16) return launch_status::beyond_maxima;
  out.probability_levels = (1u << bits) - 1;
  return launch_status::ok;
}

uint32_t read_layer(const Buffers& buffers, const uint32_t* record, const Model& model,
                    Layer& layer) {
  const auto matrix = [&](uint32_t offset, uint32_t precision, uint32_t tiles, uint32_t inputs,
                          Matrix& out) {
    return read_matrix(buffers.weights, record[offset], record[precision], tiles, inputs, out);
  };
  const auto optional_norm = [&](uint32_t word, const float*& out) {
    return word == 0 || floats_at(buffers.model, word, model.head_dim, out);
  };
  const bool ok =
      matrix(layer_field::qkv, layer_field::qkv_precision, row_tiles(model.qkv_rows()),
             model.hidden, layer.qkv) &&
      matrix(layer_field::o, layer_field::o_precision, row_tiles(model.hidden), model.attention(),
             layer.o) &&
      matrix(layer_field::gate_up, layer_field::gate_up_precision, gate_up_tiles(model.ffn),
             model.hidden, layer.gate_up) &&
      matrix(layer_field::down, layer_field::down_precision, row_tiles(model.hidden), model.ffn,
             layer.down) &&
      floats_at(buffers.model, record[layer_field::attention_norm], model.hidden,
                layer.attention_norm) &&
      floats_at(buffers.model, record[layer_field::ffn_norm], model.hidden, layer.ffn_norm) &&
      optional_norm(record[layer_field::q_norm], layer.q_norm) &&
      optional_norm(record[layer_field::k_norm], layer.k_norm);
  return ok ? launch_status::ok : launch_status::bad_offset;
}

uint32_t read_model(const Buffers& buffers, const Maxima& maxima, uint32_t layer_begin,
                    uint32_t layer_end, Model& out) {
  if (!inside(buffers.model, 0, 2)) return launch_status::bad_offset;
  const uint32_t* model = fields_at(buffers.model, 0);
  if (model[model_field::magic] != kModelMagic) return launch_status::bad_magic;
  if (model[model_field::version] != kContractVersion) return launch_status::bad_version;
  if (const uint32_t status = read_dimensions(model, maxima, out)) return status;
  const uint32_t layers = model[model_field::layers];
  if (model[model_field::weight_streams] != buffers.weights.size()) {
    return launch_status::beyond_maxima;
  }
  if (layer_begin > layer_end || layer_end > layers) return launch_status::bad_layers;
  out.kv = KvLayout{layers, out.kv_heads, out.head_dim};
  const uint64_t rope_floats = uint64_t{out.context} * rope_words(out.head_dim) * kFloatsPerWord;
  const bool ok =
      floats_at(buffers.model, model[model_field::rope], rope_floats, out.rope) &&
      floats_at(buffers.model, model[model_field::final_norm], out.hidden, out.final_norm) &&
      inside(buffers.model, model[model_field::layer_table], layers) &&
      read_matrix(buffers.weights, model[model_field::lm_head],
                  model[model_field::lm_head_precision], row_tiles(out.vocab), out.hidden,
                  out.lm_head);
  if (!ok) return launch_status::bad_offset;
  for (uint32_t l = layer_begin; l < layer_end; ++l) {
    Layer layer;
    const uint32_t* record = fields_at(buffers.model, model[model_field::layer_table] + l);
    if (const uint32_t status = read_layer(buffers, record, out, layer)) return status;
    out.layers.push_back(layer);
  }
  return launch_status::ok;
}

uint32_t read_pages(const Buffers& buffers, const uint32_t* launch, uint32_t sequence,
                    uint32_t tokens, const KvLayout& kv, std::vector<std::byte*>& pages) {
  const uint32_t streams = launch[launch_field::kv_streams];
  const uint64_t table = launch[launch_field::page_tables] +
                         uint64_t{sequence} * launch[launch_field::page_table_stride];
  const uint32_t count = divide_up(tokens, kPageTokens);
  if (!inside(buffers.desc, table, divide_up(count, kFieldsPerWord))) {
    return launch_status::bad_offset;
  }
  const uint32_t* ids = fields_at(buffers.desc, static_cast<uint32_t>(table));
  for (uint32_t i = static_cast<uint32_t>(pages.size()); i < count; ++i) {
    if (ids[i] >= launch[launch_field::kv_pages]) return launch_status::bad_page;
    const Span& arena = buffers.kv[ids[i] % streams];
    const uint64_t word = uint64_t{ids[i] / streams} * kv.page_words();
    if (!inside(arena, word, kv.page_words())) return launch_status::bad_offset;
    pages.push_back(arena.data + word * kWordBytes);
  }
  return launch_status::ok;
}

uint32_t read_row(const Buffers& buffers, const uint32_t* launch, uint32_t index,
                  const LaunchView& view, RowRecord& row) {
  const Model& model = view.model;
  const uint32_t* record = fields_at(buffers.desc, launch[launch_field::row_table] + index);
  row.sequence = record[row_field::sequence];
  row.position = record[row_field::position];
  row.flags = record[row_field::flags];
  row.target = record[row_field::target];
  if (row.sequence >= launch[launch_field::sequences] || row.position >= model.context) {
    return launch_status::bad_row;
  }
  const uint64_t input = launch[launch_field::inputs] + uint64_t{index} * float_words(model.hidden);
  if (!inside(buffers.desc, input, float_words(model.hidden))) return launch_status::bad_offset;
  row.input = reinterpret_cast<const float*>(buffers.desc.data + input * kWordBytes);

  uint32_t* out = nullptr;
  if ((row.flags & row_flag::residual) != 0) {
    if (!words_at(buffers.result, record[row_field::residual], float_words(model.hidden), out)) {
      return launch_status::bad_offset;
    }
    row.residual = reinterpret_cast<float*>(out);
  }
  if ((row.flags & row_flag::final_norm) != 0) {
    if (!words_at(buffers.result, record[row_field::final_norm], float_words(model.hidden), out)) {
      return launch_status::bad_offset;
    }
    row.final_norm = reinterpret_cast<float*>(out);
  }
  if ((row.flags & row_flag::needs_logits) == 0) return launch_status::ok;
  if ((row.flags & row_flag::target_logprob) != 0 && row.target >= model.vocab) {
    return launch_status::bad_row;
  }
  const uint32_t words = (row.flags & row_flag::row_result) != 0 ? kRowResultWords : 1;
  if (!words_at(buffers.result, record[row_field::row_result], words, row.row_result)) {
    return launch_status::bad_offset;
  }
  const uint32_t slot = record[row_field::logits_slot];
  if (slot >= launch[launch_field::logits_slots]) return launch_status::bad_row;
  const uint64_t logits = launch[launch_field::logits] + uint64_t{slot} * logits_words(model.vocab);
  if (!inside(buffers.scratch, logits, logits_words(model.vocab))) {
    return launch_status::bad_offset;
  }
  row.logits = reinterpret_cast<float*>(buffers.scratch.data + logits * kWordBytes);
  return launch_status::ok;
}

}  // namespace

uint32_t read_launch(const Buffers& buffers, const Maxima& maxima, LaunchView& view) {
  if (!inside(buffers.desc, 0, 2) || buffers.weights.empty()) return launch_status::bad_offset;
  const uint32_t* launch = fields_at(buffers.desc, 0);
  view.id = launch[launch_field::id];
  if (launch[launch_field::magic] != kLaunchMagic) return launch_status::bad_magic;
  if (launch[launch_field::version] != kContractVersion) return launch_status::bad_version;
  view.weights = buffers.weights;
  view.layer_begin = launch[launch_field::layer_begin];
  if (const uint32_t status = read_model(buffers, maxima, view.layer_begin,
                                         launch[launch_field::layer_end], view.model)) {
    return status;
  }
  const uint32_t rows = launch[launch_field::rows];
  const uint32_t sequences = launch[launch_field::sequences];
  if (rows > maxima.rows || sequences > maxima.rows || buffers.kv.empty() ||
      launch[launch_field::kv_streams] != buffers.kv.size()) {
    return launch_status::beyond_maxima;
  }
  if (!inside(buffers.desc, launch[launch_field::row_table], rows)) {
    return launch_status::bad_offset;
  }
  view.pages.resize(sequences);
  view.rows.resize(rows);
  std::vector<uint32_t> next(sequences);  // of each sequence: the position behind its last row
  for (uint32_t i = 0; i < rows; ++i) {
    RowRecord& row = view.rows[i];
    if (const uint32_t status = read_row(buffers, launch, i, view, row)) return status;
    if (row.position < next[row.sequence]) return launch_status::bad_row;
    next[row.sequence] = row.position + 1;
    if (const uint32_t status = read_pages(buffers, launch, row.sequence, row.position + 1,
                                           view.model.kv, view.pages[row.sequence])) {
      return status;
    }
  }
  return launch_status::ok;
}

}  // namespace flexllm::kernels::twin
