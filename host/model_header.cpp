#include "host/model_header.h"

#include <cstring>
#include <stdexcept>
#include <string>
#include <vector>

#include "kernels/contract/launch.h"

namespace flexllm::host {
namespace {

using kernels::float_words;
using kernels::kFieldsPerWord;
using kernels::kWordBytes;
namespace mf = kernels::model_field;
namespace lf = kernels::layer_field;

[[noreturn]] void refuse(const std::string& what) { throw std::runtime_error(what); }

// The model buffer, word by word; throws for what lies outside.
class Reader {
 public:
  Reader(const formats::PackedModel& model)
      : bytes_(model.model_buffer()), arena_words_(model.arena(0).size() / kWordBytes) {}

  uint32_t field(uint64_t word, uint32_t index) const {
    need(word, 1 + index / kFieldsPerWord, "a table");
    uint32_t value;
    std::memcpy(&value, bytes_.data() + word * kWordBytes + index * sizeof value, sizeof value);
    return value;
  }
  void need(uint64_t word, uint64_t words, const char* what) const {
    const uint64_t all = bytes_.size() / kWordBytes;
    if (word > all || words > all - word) refuse(std::string(what) + " outside the model buffer");
  }
  void need_matrix(uint32_t word, uint32_t precision_bits, uint32_t tiles, uint32_t inputs,
                   uint32_t streams) const {
    if (!kernels::Precision::valid(precision_bits)) {
      refuse("a matrix of a precision that does not exist");
    }
    const kernels::Precision precision = kernels::Precision::decode(precision_bits);
    const kernels::TileLayout tile{inputs, precision};
    const uint64_t words = uint64_t{kernels::divide_up(tiles, streams)} * tile.words();
    if (word > arena_words_ || words > arena_words_ - word) refuse("a matrix outside the arenas");
  }

 private:
  std::span<const std::byte> bytes_;
  uint64_t arena_words_;
};

void check_layers(const Reader& reader, const ModelHeader& header, uint32_t streams) {
  const uint32_t table = reader.field(0, mf::layer_table);
  reader.need(table, header.layers, "the layer table");
  const uint32_t qkv_rows = header.attention() + 2 * header.kv_heads * header.head_dim;
  for (uint32_t layer = 0; layer < header.layers; ++layer) {
    const auto field = [&](uint32_t index) { return reader.field(uint64_t{table} + layer, index); };
    const auto matrix = [&](uint32_t at, uint32_t precision, uint32_t tiles, uint32_t inputs) {
      reader.need_matrix(field(at), field(precision), tiles, inputs, streams);
    };
    using kernels::row_tiles;
    matrix(lf::qkv, lf::qkv_precision, row_tiles(qkv_rows), header.hidden);
    matrix(lf::o, lf::o_precision, row_tiles(header.hidden), header.attention());
    matrix(lf::gate_up, lf::gate_up_precision, kernels::gate_up_tiles(header.ffn), header.hidden);
    matrix(lf::down, lf::down_precision, row_tiles(header.hidden), header.ffn);
    for (const uint32_t norm : {lf::attention_norm, lf::ffn_norm}) {
      reader.need(field(norm), float_words(header.hidden), "a norm");
    }
    for (const uint32_t norm : {lf::q_norm, lf::k_norm}) {
      reader.need(field(norm), float_words(header.head_dim), "a norm");
    }
  }
}

void check_dimension(const char* name, uint32_t value, uint32_t in_config, uint32_t maximum) {
  if (value != in_config) {
    refuse(std::string("its header says ") + name + " " + std::to_string(value) +
           ", its configuration " + std::to_string(in_config));
  }
  if (value < 1 || value > maximum) {
    refuse(std::string(name) + " " + std::to_string(value) + " is more than the accelerator's " +
           std::to_string(maximum));
  }
}

ModelHeader parse(const formats::PackedModel& model, const MemoryMap& map) {
  if (model.streams() != map.weight_streams) {
    refuse("it was packed for " + std::to_string(model.streams()) + " weight streams; '" +
           map.accelerator + "' has " + std::to_string(map.weight_streams));
  }
  const Reader reader(model);
  reader.need(0, mf::fields / kFieldsPerWord, "the header");
  const auto field = [&](uint32_t index) { return reader.field(0, index); };
  if (field(mf::magic) != kernels::kModelMagic) refuse("its model buffer is not one");
  if (field(mf::version) != kernels::kContractVersion) {
    refuse("it has contract version " + std::to_string(field(mf::version)) + "; this program has " +
           std::to_string(kernels::kContractVersion));
  }
  if (field(mf::weight_streams) != map.weight_streams) refuse("its header has other streams");

  ModelHeader header;
  header.layers = field(mf::layers);
  header.hidden = field(mf::hidden);
  header.heads = field(mf::heads);
  header.kv_heads = field(mf::kv_heads);
  header.head_dim = field(mf::head_dim);
  header.ffn = field(mf::ffn);
  header.vocab = field(mf::vocab);
  header.context = field(mf::context);
  const formats::ModelConfig& config = model.config();
  const MemoryMap::Maxima& maxima = map.maxima;
  check_dimension("layers", header.layers, config.layers, 1u << 12);
  check_dimension("hidden size", header.hidden, config.hidden, maxima.hidden);
  check_dimension("heads", header.heads, config.heads, maxima.heads);
  check_dimension("KV heads", header.kv_heads, config.kv_heads, maxima.kv_heads);
  check_dimension("head size", header.head_dim, config.head_dim, maxima.head_dim);
  check_dimension("feed-forward size", header.ffn, config.ffn, maxima.ffn);
  check_dimension("vocabulary", header.vocab, config.vocab, maxima.vocab);
  check_dimension("context length", header.context, header.context, maxima.context);

  reader.need(field(mf::rope), uint64_t{header.context} * kernels::rope_words(header.head_dim),
              "the RoPE table");
  reader.need(field(mf::final_norm), float_words(header.hidden), "the final norm");
  reader.need_matrix(field(mf::lm_head), field(mf::lm_head_precision),
                     kernels::row_tiles(header.vocab), header.hidden, map.weight_streams);
  check_layers(reader, header, map.weight_streams);
  return header;
}

}  // namespace

tl::expected<ModelHeader, DeviceError> read_model_header(const formats::PackedModel& model,
                                                         const MemoryMap& map) {
  try {
    return parse(model, map);
  } catch (const std::exception& error) {
    return tl::unexpected(DeviceError{DeviceError::Kind::bad_model,
                                      model.path().string() + " cannot run: " + error.what()});
  }
}

}  // namespace flexllm::host
