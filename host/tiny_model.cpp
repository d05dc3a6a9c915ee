#include "host/tiny_model.h"

#include <bit>
#include <cmath>
#include <random>
#include <span>
#include <vector>

#include "formats/packed_model.h"
#include "kernels/contract/launch.h"

namespace flexllm::host {
namespace {

using kernels::kFieldsPerWord;
using kernels::kWordBytes;
using kernels::Precision;
using kernels::TileLayout;
namespace mf = kernels::model_field;
namespace lf = kernels::layer_field;

// Every number of output rows is a multiple of 32, so that there is no padding to fill.
constexpr uint32_t kLayers = 2;
constexpr uint32_t kHidden = 256;
constexpr uint32_t kHeads = 8;
constexpr uint32_t kKvHeads = 4;
constexpr uint32_t kHeadDim = 32;
constexpr uint32_t kFfn = 512;
constexpr uint32_t kVocab = 1024;
constexpr uint32_t kContext = 512;
constexpr uint32_t kHadamardBlock = 512;

class Builder {
 public:
  Builder(uint32_t streams, uint64_t seed) : random_(seed), arenas_(streams) {
    model_.resize(mf::fields + size_t{kLayers} * lf::fields, 0);
  }

  void build() {
    const uint32_t table = mf::fields / kFieldsPerWord;
    header(mf::magic, kernels::kModelMagic);
    header(mf::version, kernels::kContractVersion);
    header(mf::layers, kLayers);
    header(mf::hidden, kHidden);
    header(mf::heads, kHeads);
    header(mf::kv_heads, kKvHeads);
    header(mf::head_dim, kHeadDim);
    header(mf::ffn, kFfn);
    header(mf::vocab, kVocab);
    header(mf::context, kContext);
    header(mf::rms_eps, std::bit_cast<uint32_t>(1e-5f));
    header(mf::inv_sqrt_head_dim, std::bit_cast<uint32_t>(1.0f / std::sqrt(float{kHeadDim})));
    header(mf::hadamard_block, kHadamardBlock);
    header(mf::hadamard_scale,
           std::bit_cast<uint32_t>(1.0f / std::sqrt(static_cast<float>(kHadamardBlock))));
    header(mf::probability_bits, 16);
    header(mf::weight_streams, static_cast<uint32_t>(arenas_.size()));
    header(mf::layer_table, table);
    for (uint32_t layer = 0; layer < kLayers; ++layer) build_layer(layer, table + layer);
    const Precision w8a8{2, 2, false, false};
    header(mf::lm_head, matrix(kVocab, kHidden, w8a8));
    header(mf::lm_head_precision, w8a8.encode());
    header(mf::final_norm, floats(gains(kHidden)));
    header(mf::rope, rope());
    header(mf::words, static_cast<uint32_t>(model_.size() / kFieldsPerWord));
  }

  std::span<const std::byte> arena(uint32_t stream) const { return arenas_[stream]; }
  std::span<const std::byte> model() const { return std::as_bytes(std::span(model_)); }
  std::vector<float> embedding() {
    std::vector<float> rows(size_t{kVocab} * kHidden);
    for (float& value : rows) value = uniform(-1.0f, 1.0f);
    return rows;
  }

 private:
  void header(uint32_t field, uint32_t value) { model_[field] = value; }

  // The same bits with every standard library.
  float uniform(float low, float high) {
    return low + (high - low) * static_cast<float>(random_() >> 40) * 0x1p-24f;
  }
  uint8_t byte() { return static_cast<uint8_t>(random_() >> 56); }

  void build_layer(uint32_t layer, uint32_t word) {
    const bool odd = layer % 2 == 1;
    const Precision qkv{odd ? 2u : 1u, 2, !odd, odd};
    const Precision o{1, odd ? 1u : 2u, true, false};
    const Precision gate_up{odd ? 2u : 1u, odd ? 1u : 2u, false, false};
    const Precision down{odd ? 1u : 2u, 2, odd, true};
    // The record is filled at the end: adding parts moves the model buffer.
    std::vector<uint32_t> record(lf::fields, 0);
    record[lf::qkv] = matrix((kHeads + 2 * kKvHeads) * kHeadDim, kHidden, qkv);
    record[lf::o] = matrix(kHidden, kHeads * kHeadDim, o);
    record[lf::gate_up] = matrix(2 * kFfn, kHidden, gate_up);
    record[lf::down] = matrix(kHidden, kFfn, down);
    record[lf::qkv_precision] = qkv.encode();
    record[lf::o_precision] = o.encode();
    record[lf::gate_up_precision] = gate_up.encode();
    record[lf::down_precision] = down.encode();
    record[lf::attention_norm] = floats(gains(kHidden));
    record[lf::ffn_norm] = floats(gains(kHidden));
    if (odd) {
      record[lf::q_norm] = floats(gains(kHeadDim));
      record[lf::k_norm] = floats(gains(kHeadDim));
    }
    std::copy(record.begin(), record.end(), model_.begin() + std::ptrdiff_t{word} * kFieldsPerWord);
  }

  uint32_t floats(std::span<const float> values) {
    const uint32_t word = static_cast<uint32_t>(model_.size() / kFieldsPerWord);
    for (const float value : values) model_.push_back(std::bit_cast<uint32_t>(value));
    model_.resize((model_.size() + kFieldsPerWord - 1) / kFieldsPerWord * kFieldsPerWord, 0);
    return word;
  }

  std::vector<float> gains(uint32_t count) {
    std::vector<float> values(count);
    for (float& value : values) value = uniform(0.5f, 1.5f);
    return values;
  }

  uint32_t rope() {
    std::vector<float> table;
    for (uint32_t position = 0; position < kContext; ++position) {
      for (const bool sine : {false, true}) {
        for (uint32_t i = 0; i < kHeadDim / 2; ++i) {
          const double angle = position * std::pow(10000.0, -2.0 * i / kHeadDim);
          table.push_back(static_cast<float>(sine ? std::sin(angle) : std::cos(angle)));
        }
      }
    }
    return floats(table);
  }

  // Appends a matrix of random planes and multipliers to the arenas; returns its offset. Scales
  // keep the outputs near 1; weight sums are random too: the kernels take them as data.
  uint32_t matrix(uint32_t rows, uint32_t inputs, const Precision& precision) {
    const TileLayout tile{inputs, precision};
    const uint32_t streams = static_cast<uint32_t>(arenas_.size());
    const uint32_t tiles = kernels::row_tiles(rows);
    const size_t offset = arenas_[0].size();
    for (auto& arena : arenas_) {
      arena.resize(offset + size_t{kernels::divide_up(tiles, streams)} * tile.words() * kWordBytes);
    }
    const float steps =
        (precision.weight_planes == 1 ? 4.0f : 64.0f) * (precision.grouped ? 32.0f : 1.0f);
    const float scale = 1.0f / (steps * std::sqrt(static_cast<float>(inputs)));
    for (uint32_t t = 0; t < tiles; ++t) {
      std::byte* at =
          arenas_[t % streams].data() + offset + size_t{t / streams} * tile.words() * kWordBytes;
      const auto part = [&](uint32_t word) { return at + size_t{word} * kWordBytes; };
      auto* scales = reinterpret_cast<float*>(part(tile.scales()));
      auto* sums = reinterpret_cast<float*>(part(tile.weight_sums()));
      auto* bias = reinterpret_cast<float*>(part(tile.bias()));
      for (uint32_t row = 0; row < kernels::kTileRows; ++row) {
        scales[row] = scale * uniform(0.5f, 1.5f);
        sums[row] = uniform(-0.1f, 0.1f);
        if (precision.bias) bias[row] = uniform(-0.1f, 0.1f);
      }
      if (precision.grouped) {
        auto* multipliers = reinterpret_cast<uint8_t*>(part(tile.multipliers()));
        for (uint32_t i = 0; i < tile.groups() * kernels::kTileRows; ++i) {
          multipliers[i] = static_cast<uint8_t>(1 + byte() % kernels::kMaxMultiplier);
        }
      }
      const size_t plane_bytes = size_t{precision.weight_planes} * tile.plane_words() * kWordBytes;
      auto* planes = reinterpret_cast<uint8_t*>(part(tile.planes()));
      for (size_t i = 0; i < plane_bytes; ++i) planes[i] = byte();
    }
    return static_cast<uint32_t>(offset / kWordBytes);
  }

  std::mt19937_64 random_;
  std::vector<std::vector<std::byte>> arenas_;
  std::vector<uint32_t> model_;
};

}  // namespace

void write_tiny_model(const std::filesystem::path& path, uint32_t streams, uint64_t seed) {
  formats::PackedModelInfo info;
  info.config.name = "selftest";
  info.config.layers = kLayers;
  info.config.hidden = kHidden;
  info.config.ffn = kFfn;
  info.config.heads = kHeads;
  info.config.kv_heads = kKvHeads;
  info.config.head_dim = kHeadDim;
  info.config.vocab = kVocab;
  info.config.context_length = kContext;
  info.config.attention_bias = true;
  info.config.qk_norm = true;
  info.tokenizer.tokens.assign(kVocab, "");
  info.scheme = "selftest";
  info.source = "selftest";

  Builder builder(streams, seed);
  builder.build();
  formats::PackedModelWriter writer(path, info, streams, builder.arena(0).size(),
                                    builder.model().size(), formats::DType::f32);
  for (uint32_t stream = 0; stream < streams; ++stream) {
    writer.write_arena(stream, builder.arena(stream));
  }
  writer.write_model_buffer(builder.model());
  writer.write_embedding(builder.embedding());
  writer.commit();
}

}  // namespace flexllm::host
