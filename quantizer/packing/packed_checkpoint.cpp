#include "quantizer/packing/packed_checkpoint.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "formats/error.h"
#include "kernels/contract/launch.h"
#include "quantizer/algebra/hadamard.h"
#include "quantizer/packing/model_buffer.h"

namespace flexllm::quantizer {
namespace {

using kernels::kFieldsPerWord;
using kernels::kInputsPerWord;
using kernels::kTileRows;
using kernels::kWordBytes;
using kernels::Precision;
namespace model_field = kernels::model_field;
namespace layer_field = kernels::layer_field;

float float_at(const std::byte* bytes) {
  float value = 0;
  std::memcpy(&value, bytes, sizeof value);
  return value;
}

}  // namespace

PackedCheckpoint::PackedCheckpoint(const formats::PackedModel& packed)
    : packed_(packed), config_(packed.config()) {
  config_.tied_embeddings = false;  // lm_head is a matrix of its own
  const uint32_t block = field(model_field::hadamard_block);
  if (block != 0 && block != hadamard_block(config_.ffn)) {
    throw formats::Error("the model buffer has a Hadamard block of another size");
  }
  options_.rotate_down = block != 0;
  options_.int8_attention = true;
  options_.probability_bits = field(model_field::probability_bits);
  add("model.embed_tokens.weight", {config_.vocab, config_.hidden}, {});
  add("model.norm.weight", {config_.hidden},
      {.part = Part::gain, .word = field(model_field::final_norm)});
  const auto head = Precision::decode(field(model_field::lm_head_precision));
  options_.lm_head = RowRounding::before(head);
  add("lm_head.weight", {config_.vocab, config_.hidden},
      {.part = Part::weights,
       .word = field(model_field::lm_head),
       .layout = {config_.hidden, head}});
  for (uint32_t layer = 0; layer < config_.layers; ++layer) add_layer(layer);
}

uint32_t PackedCheckpoint::field(uint64_t index) const {
  const std::span<const std::byte> bytes = packed_.model_buffer();
  if ((index + 1) * sizeof(uint32_t) > bytes.size()) {
    throw formats::Error("the model buffer is too short");
  }
  uint32_t value = 0;
  std::memcpy(&value, bytes.data() + index * sizeof value, sizeof value);
  return value;
}

void PackedCheckpoint::add(const std::string& name, std::vector<uint64_t> shape,
                           const Place& place) {
  // The last row must be there: all tiles before it then are.
  if (place.part == Part::gain) {
    field(uint64_t{place.word} * kFieldsPerWord + shape[0] - 1);
  } else if (place.part != Part::embedding) {
    uint32_t line = 0;
    for (uint64_t back = 1; back <= std::min<uint64_t>(shape[0], kTileRows * packed_.streams());
         ++back) {
      tile_of(place, shape[0] - back, line);
    }
  }
  tensors_.push_back({name, std::move(shape), formats::DType::f32});
  places_.emplace(name, place);
}

void PackedCheckpoint::add_layer(uint32_t layer) {
  const uint64_t record = (uint64_t{field(model_field::layer_table)} + layer) * kFieldsPerWord;
  const auto get = [&](uint32_t index) { return field(record + index); };
  const std::string prefix = "model.layers." + std::to_string(layer) + ".";
  const uint64_t q_rows = uint64_t{config_.heads} * config_.head_dim;
  const uint64_t kv_rows = uint64_t{config_.kv_heads} * config_.head_dim;
  const auto gain = [&](const char* name, uint32_t index, uint64_t size) {
    add(prefix + name, {size}, {.part = Part::gain, .word = get(index)});
  };
  const auto matrix = [&](const std::string& name, uint64_t rows, uint64_t inputs, uint32_t index,
                          uint32_t precision, uint64_t first_row = 0, Rows order = Rows::stacked) {
    Place place{.part = Part::weights,
                .word = get(index),
                .layout = {static_cast<uint32_t>(inputs), Precision::decode(get(precision))},
                .first_row = static_cast<uint32_t>(first_row),
                .rows = order};
    add(prefix + name + ".weight", {rows, inputs}, place);
    if (!place.layout.precision.bias) return;
    place.part = Part::bias;
    add(prefix + name + ".bias", {rows}, place);
  };
  gain("input_layernorm.weight", layer_field::attention_norm, config_.hidden);
  gain("post_attention_layernorm.weight", layer_field::ffn_norm, config_.hidden);
  matrix("self_attn.q_proj", q_rows, config_.hidden, layer_field::qkv, layer_field::qkv_precision);
  matrix("self_attn.k_proj", kv_rows, config_.hidden, layer_field::qkv, layer_field::qkv_precision,
         q_rows);
  matrix("self_attn.v_proj", kv_rows, config_.hidden, layer_field::qkv, layer_field::qkv_precision,
         q_rows + kv_rows);
  matrix("self_attn.o_proj", config_.hidden, q_rows, layer_field::o, layer_field::o_precision);
  if (config_.qk_norm) {
    gain("self_attn.q_norm.weight", layer_field::q_norm, config_.head_dim);
    gain("self_attn.k_norm.weight", layer_field::k_norm, config_.head_dim);
  }
  matrix("mlp.gate_proj", config_.ffn, config_.hidden, layer_field::gate_up,
         layer_field::gate_up_precision, 0, Rows::gate);
  matrix("mlp.up_proj", config_.ffn, config_.hidden, layer_field::gate_up,
         layer_field::gate_up_precision, 0, Rows::up);
  matrix("mlp.down_proj", config_.hidden, config_.ffn, layer_field::down,
         layer_field::down_precision);
  const auto before = [&](uint32_t precision) {
    return RowRounding::before(Precision::decode(get(precision)));
  };
  options_.activations.push_back(
      {before(layer_field::qkv_precision), before(layer_field::o_precision),
       before(layer_field::gate_up_precision), before(layer_field::down_precision)});
}

const formats::TensorInfo* PackedCheckpoint::find(std::string_view name) const {
  const auto found = std::ranges::find(tensors_, name, &formats::TensorInfo::name);
  return found == tensors_.end() ? nullptr : &*found;
}

const std::byte* PackedCheckpoint::tile_of(const Place& place, uint64_t row, uint32_t& line) const {
  const uint64_t at = place.first_row + row;
  line = static_cast<uint32_t>(at % kTileRows);
  uint64_t tile = at / kTileRows;
  if (place.rows != Rows::stacked) tile = 2 * tile + (place.rows == Rows::up ? 1 : 0);
  const uint32_t streams = packed_.streams();
  const std::span<const std::byte> arena = packed_.arena(static_cast<uint32_t>(tile % streams));
  const uint64_t begin = (place.word + tile / streams * place.layout.words()) * kWordBytes;
  if (begin + uint64_t{place.layout.words()} * kWordBytes > arena.size()) {
    throw formats::Error("a matrix lies outside the arenas");
  }
  return arena.data() + begin;
}

void PackedCheckpoint::read_weights(const Place& place, uint64_t row, std::span<float> out) const {
  uint32_t line = 0;
  const std::byte* tile = tile_of(place, row, line);
  const kernels::TileLayout& layout = place.layout;
  const float scale = float_at(tile + size_t{layout.scales()} * kWordBytes + 4 * line);
  const std::byte* multipliers = tile + size_t{layout.multipliers()} * kWordBytes;
  const std::byte* planes = tile + size_t{layout.planes()} * kWordBytes;
  const size_t lane = line % (kTileRows / 2) * kInputsPerWord;
  const uint32_t shift = line >= kTileRows / 2 ? 4 : 0;
  for (uint32_t i = 0; i < layout.inputs; ++i) {
    uint32_t bits = 0;
    for (uint32_t plane = 0; plane < layout.precision.weight_planes; ++plane) {
      const size_t word = size_t{plane} * layout.plane_words() + i / kInputsPerWord;
      const auto byte =
          static_cast<uint32_t>(planes[word * kWordBytes + lane + i % kInputsPerWord]);
      bits |= ((byte >> shift) & 15u) << (4 * plane);
    }
    int32_t value = static_cast<int32_t>(bits) - layout.precision.weight_offset();
    if (layout.precision.grouped) {
      value *= static_cast<int32_t>(multipliers[i / kernels::kGroupInputs * kTileRows + line]);
    }
    out[i] = scale * static_cast<float>(value);
  }
}

void PackedCheckpoint::read_rows_f32(std::string_view name, uint64_t first_row, uint64_t n_rows,
                                     std::span<float> out) const {
  const formats::TensorInfo* info = find(name);
  if (info == nullptr) {
    throw formats::Error("the packed model has no tensor '" + std::string(name) + "'");
  }
  const uint64_t width = info->shape.size() == 2 ? info->shape[1] : 1;
  if (first_row > info->shape[0] || n_rows > info->shape[0] - first_row ||
      out.size() != n_rows * width) {
    throw formats::Error("rows outside tensor '" + std::string(name) + "'");
  }
  const Place& place = places_.find(name)->second;
  const bool turned = options_.rotate_down && name.ends_with("mlp.down_proj.weight");
  for (uint64_t r = 0; r < n_rows; ++r) {
    const std::span<float> row = out.subspan(r * width, width);
    switch (place.part) {
      case Part::embedding:
        packed_.embedding_row(static_cast<uint32_t>(first_row + r), row);
        break;
      case Part::gain: {
        const uint32_t bits = field(uint64_t{place.word} * kFieldsPerWord + first_row + r);
        std::memcpy(row.data(), &bits, sizeof bits);
        break;
      }
      case Part::weights:
        read_weights(place, first_row + r, row);
        if (turned) {
          const size_t block = hadamard_block(config_.ffn);
          walsh_hadamard(row, block, 1 / std::sqrt(static_cast<float>(block)));
        }
        break;
      case Part::bias: {
        uint32_t line = 0;
        const std::byte* tile = tile_of(place, first_row + r, line);
        row[0] = float_at(tile + size_t{place.layout.bias()} * kWordBytes + 4 * line);
        break;
      }
    }
  }
}

}  // namespace flexllm::quantizer
