#include "quantizer/packing/model_buffer.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>

namespace flexllm::quantizer {
namespace {

using kernels::kFieldsPerWord;
namespace model_field = kernels::model_field;

uint32_t bits_of(double value) { return std::bit_cast<uint32_t>(static_cast<float>(value)); }

}  // namespace

uint32_t hadamard_block(uint32_t ffn) { return std::min(512u, 1u << std::countr_zero(ffn)); }

ModelBuffer::ModelBuffer(const formats::ModelConfig& config, const Scheme& scheme, uint32_t streams,
                         uint32_t context)
    : fields_(model_field::fields) {
  set(model_field::magic, kernels::kModelMagic);
  set(model_field::version, kernels::kContractVersion);
  set(model_field::layers, config.layers);
  set(model_field::hidden, config.hidden);
  set(model_field::heads, config.heads);
  set(model_field::kv_heads, config.kv_heads);
  set(model_field::head_dim, config.head_dim);
  set(model_field::ffn, config.ffn);
  set(model_field::vocab, config.vocab);
  set(model_field::context, context);
  set(model_field::rms_eps, bits_of(double{config.rms_eps}));
  set(model_field::inv_sqrt_head_dim, bits_of(1.0 / std::sqrt(double{1} * config.head_dim)));
  const uint32_t block = scheme.rotate_down ? hadamard_block(config.ffn) : 0;
  set(model_field::hadamard_block, block);
  set(model_field::hadamard_scale, bits_of(block == 0 ? 0.0 : 1.0 / std::sqrt(double{1} * block)));
  set(model_field::probability_bits, scheme.probability_bits);
  set(model_field::weight_streams, streams);
  set(model_field::lm_head_precision, scheme.lm_head.encoded(false).encode());
  set(model_field::layer_table, static_cast<uint32_t>(fields_.size() / kFieldsPerWord));
  fields_.resize(fields_.size() + size_t{config.layers} * kFieldsPerWord);
  append_rope(config, context);
}

void ModelBuffer::append_rope(const formats::ModelConfig& config, uint32_t context) {
  const std::vector<double> frequencies = formats::rope_frequencies(config.rope, config.head_dim);
  const size_t half = frequencies.size();
  const size_t stride = size_t{kernels::rope_words(config.head_dim)} * kernels::kFloatsPerWord;
  std::vector<float> table(size_t{context} * stride);
  for (size_t p = 0; p < context; ++p) {
    float* row = table.data() + p * stride;
    for (size_t i = 0; i < half; ++i) {
      const double angle = static_cast<double>(p) * frequencies[i];
      row[i] = static_cast<float>(std::cos(angle));
      row[half + i] = static_cast<float>(std::sin(angle));
    }
  }
  set(model_field::rope, append(table));
}

uint32_t ModelBuffer::append(std::span<const float> values) {
  const size_t offset = fields_.size() / kFieldsPerWord;
  const size_t words = (values.size() + kFieldsPerWord - 1) / kFieldsPerWord;
  fields_.resize(fields_.size() + words * kFieldsPerWord);
  std::memcpy(fields_.data() + offset * kFieldsPerWord, values.data(), values.size_bytes());
  return static_cast<uint32_t>(offset);
}

void ModelBuffer::set_layer(uint32_t layer, uint32_t field, uint32_t value) {
  const size_t table = fields_[model_field::layer_table];
  fields_[(table + layer) * kFieldsPerWord + field] = value;
}

void ModelBuffer::set(uint32_t field, uint32_t value) { fields_[field] = value; }

std::span<const std::byte> ModelBuffer::finish() {
  set(model_field::words, static_cast<uint32_t>(fields_.size() / kFieldsPerWord));
  return std::as_bytes(std::span(fields_));
}

}  // namespace flexllm::quantizer
