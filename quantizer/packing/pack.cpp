#include "quantizer/packing/pack.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <exception>
#include <mutex>
#include <stdexcept>
#include <thread>

#include "formats/error.h"
#include "formats/packed_model.h"
#include "quantizer/packing/arenas.h"
#include "quantizer/packing/model_buffer.h"
#include "quantizer/rounding/weights.h"

namespace flexllm::quantizer {
namespace {

using kernels::kTileRows;
namespace layer_field = kernels::layer_field;

// Where row `row` of a named tensor goes in a matrix.
struct Place {
  uint32_t tile;
  uint32_t line;
};
using PlaceOf = std::function<Place(uint32_t row)>;

Place stacked(uint32_t row) { return {row / kTileRows, row % kTileRows}; }

void check_shapes(const formats::ModelConfig& c) {
  const auto require = [](bool ok, const char* what) {
    if (!ok)
      throw std::invalid_argument(std::string("the kernels do not take this model: ") + what);
  };
  require(c.layers > 0 && c.heads > 0 && c.kv_heads > 0 && c.vocab > 0, "a dimension is 0");
  require(c.hidden % 4 == 0 && c.ffn % 4 == 0, "hidden and ffn must be divisible by 4");
  require(c.head_dim % 8 == 0, "head_dim must be divisible by 8");
  require(c.heads % c.kv_heads == 0, "heads must be a multiple of kv_heads");
}

class Packer {
 public:
  Packer(const formats::Checkpoint& checkpoint, const PackOptions& options)
      : checkpoint_(checkpoint),
        config_(checkpoint.config()),
        options_(options),
        threads_(options.threads != 0 ? options.threads
                                      : std::max(1u, std::thread::hardware_concurrency())),
        context_(options.max_context != 0 ? std::min(options.max_context, config_.context_length)
                                          : config_.context_length),
        arenas_(options.streams),
        buffer_(config_, options.scheme, options.streams, context_) {}

  void run(const std::filesystem::path& path) {
    for (uint32_t l = 0; l < config_.layers; ++l) {
      pack_layer(l);
      report(static_cast<double>(l + 1) / (config_.layers + 2));
    }
    pack_lm_head();
    buffer_.set(kernels::model_field::final_norm, buffer_.append(read("model.norm.weight")));
    report(static_cast<double>(config_.layers + 1) / (config_.layers + 2));
    write(path);
    report(1);
  }

 private:
  void report(double share) const {
    if (options_.progress) options_.progress(share);
  }

  std::vector<float> read(const std::string& name) const {
    std::vector<float> values = checkpoint_.read_f32(name);
    if (!std::all_of(values.begin(), values.end(), [](float v) { return std::isfinite(v); })) {
      throw formats::Error("tensor \"" + name + "\" has a value that is not finite");
    }
    return values;
  }

  void pack_layer(uint32_t layer) {
    const std::string prefix = "model.layers." + std::to_string(layer) + ".";
    const uint32_t q_rows = config_.heads * config_.head_dim;
    const uint32_t kv_rows = config_.kv_heads * config_.head_dim;
    const auto from = [](uint32_t first) {
      return [first](uint32_t row) { return stacked(first + row); };
    };
    const auto alternate = [](uint32_t half) {
      return [half](uint32_t row) { return Place{2 * (row / kTileRows) + half, row % kTileRows}; };
    };
    const kernels::TileLayout qkv{
        config_.hidden,
        options_.scheme.of({layer, MatrixKind::qkv}).encoded(config_.attention_bias)};
    const uint32_t at = arenas_.reserve(kernels::row_tiles(q_rows + 2 * kv_rows), qkv);
    place_matrix(prefix + "self_attn.q_proj", at, qkv, from(0));
    place_matrix(prefix + "self_attn.k_proj", at, qkv, from(q_rows));
    place_matrix(prefix + "self_attn.v_proj", at, qkv, from(q_rows + kv_rows));
    set_matrix(layer, layer_field::qkv, layer_field::qkv_precision, at, qkv);

    const kernels::TileLayout o{q_rows, options_.scheme.of({layer, MatrixKind::o}).encoded(false)};
    const uint32_t o_at = arenas_.reserve(kernels::row_tiles(config_.hidden), o);
    place_matrix(prefix + "self_attn.o_proj", o_at, o, stacked);
    set_matrix(layer, layer_field::o, layer_field::o_precision, o_at, o);

    const kernels::TileLayout gate_up{
        config_.hidden, options_.scheme.of({layer, MatrixKind::gate_up}).encoded(false)};
    const uint32_t gate_at = arenas_.reserve(kernels::gate_up_tiles(config_.ffn), gate_up);
    place_matrix(prefix + "mlp.gate_proj", gate_at, gate_up, alternate(0));
    place_matrix(prefix + "mlp.up_proj", gate_at, gate_up, alternate(1));
    set_matrix(layer, layer_field::gate_up, layer_field::gate_up_precision, gate_at, gate_up);

    const kernels::TileLayout down{config_.ffn,
                                   options_.scheme.of({layer, MatrixKind::down}).encoded(false)};
    const uint32_t down_at = arenas_.reserve(kernels::row_tiles(config_.hidden), down);
    place_matrix(prefix + "mlp.down_proj", down_at, down, stacked, options_.scheme.rotate_down);
    set_matrix(layer, layer_field::down, layer_field::down_precision, down_at, down);

    const auto gain = [&](uint32_t field, const char* name) {
      buffer_.set_layer(layer, field, buffer_.append(read(prefix + name)));
    };
    gain(layer_field::attention_norm, "input_layernorm.weight");
    gain(layer_field::ffn_norm, "post_attention_layernorm.weight");
    if (config_.qk_norm) {
      gain(layer_field::q_norm, "self_attn.q_norm.weight");
      gain(layer_field::k_norm, "self_attn.k_norm.weight");
    }
  }

  void pack_lm_head() {
    const kernels::TileLayout layout{config_.hidden, options_.scheme.lm_head.encoded(false)};
    const uint32_t at = arenas_.reserve(kernels::row_tiles(config_.vocab), layout);
    const std::string name = config_.tied_embeddings ? "model.embed_tokens" : "lm_head";
    place_matrix(name, at, layout, stacked);
    buffer_.set(kernels::model_field::lm_head, at);
  }

  void set_matrix(uint32_t layer, uint32_t offset_field, uint32_t precision_field, uint32_t offset,
                  const kernels::TileLayout& layout) {
    buffer_.set_layer(layer, offset_field, offset);
    buffer_.set_layer(layer, precision_field, layout.precision.encode());
  }

  // Quantises the rows of `name`.weight, in slices of bounded memory, and puts them in place.
  void place_matrix(const std::string& name, uint32_t offset, const kernels::TileLayout& layout,
                    const PlaceOf& place, bool rotate = false) {
    const std::string weight = name + ".weight";
    const formats::TensorInfo* info = checkpoint_.find(weight);
    if (info == nullptr || info->shape.size() != 2 || info->shape[1] != layout.inputs) {
      throw formats::Error("tensor \"" + weight + "\" is missing or has another shape");
    }
    const auto rows = static_cast<uint32_t>(info->shape[0]);
    std::vector<float> bias(rows);
    if (layout.precision.bias) bias = read(name + ".bias");
    constexpr uint32_t kSliceRows = 4096;
    std::vector<float> slice;
    for (uint32_t begin = 0; begin < rows; begin += kSliceRows) {
      const uint32_t count = std::min(kSliceRows, rows - begin);
      slice.resize(size_t{count} * layout.inputs);
      checkpoint_.read_rows_f32(weight, begin, count, slice);
      if (!std::all_of(slice.begin(), slice.end(), [](float v) { return std::isfinite(v); })) {
        throw formats::Error("tensor \"" + weight + "\" has a value that is not finite");
      }
      std::vector<QuantizedRow> quantized(count);
      in_parallel(count, [&](uint32_t r) {
        const std::span<float> row(slice.data() + size_t{r} * layout.inputs, layout.inputs);
        if (rotate) hadamard_rows(row);
        quantized[r] =
            quantize_row(row, 4 * layout.precision.weight_planes, layout.precision.grouped);
      });
      // Rows of a tile share bytes, so they are placed by one thread.
      for (uint32_t r = 0; r < count; ++r) {
        const Place at = place(begin + r);
        arenas_.place(offset, layout, at.tile, at.line, quantized[r], bias[begin + r]);
      }
    }
  }

  // W H = W H^-1 for the normalised Walsh-Hadamard matrix, block by block (R4's inverse, fused).
  void hadamard_rows(std::span<float> row) const {
    const size_t block = hadamard_block(config_.ffn);
    const double scale = 1.0 / std::sqrt(static_cast<double>(block));
    std::vector<double> b(block);
    for (size_t begin = 0; begin < row.size(); begin += block) {
      std::copy_n(row.begin() + static_cast<std::ptrdiff_t>(begin), block, b.begin());
      for (size_t h = 1; h < block; h *= 2) {
        for (size_t i = 0; i < block; ++i) {
          if ((i & h) != 0) continue;
          const double left = b[i];
          const double right = b[i + h];
          b[i] = left + right;
          b[i + h] = left - right;
        }
      }
      for (size_t i = 0; i < block; ++i) row[begin + i] = static_cast<float>(b[i] * scale);
    }
  }

  void in_parallel(uint32_t count, const std::function<void(uint32_t)>& body) const {
    std::atomic<uint32_t> next{0};
    std::exception_ptr error;
    std::mutex mutex;
    const auto work = [&] {
      try {
        for (uint32_t i = next.fetch_add(1); i < count; i = next.fetch_add(1)) body(i);
      } catch (...) {
        const std::lock_guard lock(mutex);
        error = std::current_exception();
      }
    };
    {
      std::vector<std::jthread> helpers;
      for (uint32_t i = 1; i < threads_; ++i) helpers.emplace_back(work);
      work();
    }
    if (error) std::rethrow_exception(error);
  }

  void write(const std::filesystem::path& path) {
    const std::span<const std::byte> model = buffer_.finish();
    formats::PackedModelInfo info{config_,
                                  checkpoint_.generation_defaults(),
                                  checkpoint_.tokenizer(),
                                  options_.scheme.name(),
                                  options_.source,
                                  options_.source_sha256};
    info.config.context_length = context_;
    formats::PackedModelWriter writer(path, std::move(info), options_.streams,
                                      arenas_.arena(0).size(), model.size(), formats::DType::f16);
    for (uint32_t s = 0; s < options_.streams; ++s) writer.write_arena(s, arenas_.arena(s));
    writer.write_model_buffer(model);
    constexpr uint32_t kSliceRows = 4096;
    std::vector<float> rows;
    for (uint32_t begin = 0; begin < config_.vocab; begin += kSliceRows) {
      const uint32_t count = std::min(kSliceRows, config_.vocab - begin);
      rows.resize(size_t{count} * config_.hidden);
      checkpoint_.read_rows_f32("model.embed_tokens.weight", begin, count, rows);
      writer.write_embedding(rows);
    }
    writer.commit();
  }

  const formats::Checkpoint& checkpoint_;
  const formats::ModelConfig& config_;
  const PackOptions& options_;
  uint32_t threads_;
  uint32_t context_;
  Arenas arenas_;
  ModelBuffer buffer_;
};

}  // namespace

void pack(const formats::Checkpoint& checkpoint, const std::filesystem::path& path,
          const PackOptions& options) {
  check_shapes(checkpoint.config());
  Packer(checkpoint, options).run(path);
}

}  // namespace flexllm::quantizer
