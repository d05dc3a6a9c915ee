#include "quantizer/packing/pack.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <optional>
#include <stdexcept>
#include <utility>

#include "formats/error.h"
#include "formats/packed_model.h"
#include "formats/safetensors.h"
#include "quantizer/packing/arenas.h"
#include "quantizer/packing/model_buffer.h"
#include "quantizer/packing/partial_folder.h"
#include "quantizer/packing/partial_run.h"
#include "quantizer/rotation/rotated_checkpoint.h"

namespace flexllm::quantizer {
namespace {

using kernels::kTileRows;
using kernels::TileLayout;
namespace layer_field = kernels::layer_field;

constexpr uint32_t kSliceRows = 4096;          // of the vocabulary, at a time
constexpr uint64_t kSliceElements = 4u << 20;  // of a tensor that is only looked through

constexpr MatrixKind kKinds[] = {MatrixKind::qkv, MatrixKind::o, MatrixKind::gate_up,
                                 MatrixKind::down};

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

// Before hours of work: a value that is not finite would spoil them.
void check_finite(const formats::Checkpoint& checkpoint, Workers& workers) {
  const auto tensors = checkpoint.tensors();
  workers.run(tensors.size(), [&](size_t index) {
    const formats::TensorInfo& info = tensors[index];
    const uint64_t rows = info.shape.front();
    const uint64_t width = info.shape.size() == 1 ? 1 : info.shape.back();
    const uint64_t slice = std::max<uint64_t>(1, kSliceElements / width);
    std::vector<float> values;
    for (uint64_t begin = 0; begin < rows; begin += slice) {
      const uint64_t count = std::min(slice, rows - begin);
      values.resize(count * width);
      checkpoint.read_rows_f32(info.name, begin, count, values);
      if (!std::all_of(values.begin(), values.end(), [](float v) { return std::isfinite(v); })) {
        throw formats::Error("tensor \"" + info.name + "\" has a value that is not finite");
      }
    }
  });
}

// Where row `row` of a matrix of a layer goes: gate and up alternate by tiles.
struct Place {
  uint32_t tile;
  uint32_t line;
};
Place place_of(MatrixKind kind, uint32_t row, uint32_t ffn) {
  if (kind != MatrixKind::gate_up) return {row / kTileRows, row % kTileRows};
  const uint32_t half = row < ffn ? 0 : 1;
  const uint32_t in_half = row - half * ffn;
  return {2 * (in_half / kTileRows) + half, in_half % kTileRows};
}

class Packer {
 public:
  // `checkpoint` stands in the basis that is packed, `original` in its own.
  Packer(const formats::Checkpoint& checkpoint, const formats::Checkpoint& original,
         const Rotations& rotations, const PackOptions& options, Workers& workers)
      : checkpoint_(checkpoint),
        original_(original),
        rotations_(rotations),
        config_(checkpoint.config()),
        options_(options),
        workers_(workers),
        context_(options.max_context != 0 ? std::min(options.max_context, config_.context_length)
                                          : config_.context_length),
        model_(checkpoint, float_options(), workers),
        arenas_(options.streams),
        buffer_(config_, options.scheme, options.streams, context_) {
    for (uint32_t layer = 0; layer < config_.layers; ++layer) {
      for (const MatrixKind kind : kKinds) offsets_.push_back(reserve({layer, kind}));
    }
    head_offset_ = reserve({config_.layers, MatrixKind::lm_head});
  }

  void run(const std::filesystem::path& path) {
    formats::remove_abandoned(path);  // for its room on the disk
    check_disk(path);
    std::unique_ptr<Rounder> rounder = options_.rounder ? options_.rounder(checkpoint_, workers_)
                                                        : std::make_unique<NearestRounder>();
    std::optional<PartialRun> partial;
    if (options_.resumable) partial.emplace(path, key(rounder->key()));
    const uint64_t whole = layer_parameters() * config_.layers + head_parameters();
    for (uint32_t layer = 0; layer < config_.layers; ++layer) {
      pack_layer(layer, *rounder, partial ? &*partial : nullptr);
      report(layer_parameters() * (layer + 1), whole);
    }
    pack_lm_head(*rounder, whole);
    buffer_.set(kernels::model_field::final_norm,
                buffer_.append(checkpoint_.read_f32("model.norm.weight")));
    write(path, rounder->key());
    if (partial) partial->finish();
    if (options_.progress) options_.progress(1);
  }

 private:
  FloatOptions float_options() const {
    FloatOptions options;
    options.rotate_down = options_.scheme.rotate_down;
    return options;
  }

  // ---- shapes ----------------------------------------------------------------------------------

  TileLayout layout(const MatrixId& id) const {
    return {inputs(id.kind),
            options_.scheme.of(id).encoded(id.kind == MatrixKind::qkv && config_.attention_bias)};
  }
  uint32_t inputs(MatrixKind kind) const {
    if (kind == MatrixKind::o) return config_.heads * config_.head_dim;
    return kind == MatrixKind::down ? config_.ffn : config_.hidden;
  }
  uint32_t outputs(MatrixKind kind) const {
    switch (kind) {
      case MatrixKind::qkv:
        return (config_.heads + 2 * config_.kv_heads) * config_.head_dim;
      case MatrixKind::gate_up:
        return 2 * config_.ffn;
      case MatrixKind::lm_head:
        return config_.vocab;
      case MatrixKind::o:
      case MatrixKind::down:
        break;
    }
    return config_.hidden;
  }
  uint32_t reserve(const MatrixId& id) {
    const uint32_t tiles = id.kind == MatrixKind::gate_up ? kernels::gate_up_tiles(config_.ffn)
                                                          : kernels::row_tiles(outputs(id.kind));
    return arenas_.reserve(tiles, layout(id));
  }

  uint64_t layer_parameters() const {
    uint64_t sum = 0;
    for (const MatrixKind kind : kKinds) sum += uint64_t{inputs(kind)} * outputs(kind);
    return sum;
  }
  uint64_t head_parameters() const { return uint64_t{config_.hidden} * config_.vocab; }

  // ---- running ---------------------------------------------------------------------------------

  void report(uint64_t done, uint64_t whole) const {
    // The last hundredth is the writing of the file.
    if (options_.progress) {
      options_.progress(0.99 * static_cast<double>(done) / static_cast<double>(whole));
    }
  }

  void check_disk(const std::filesystem::path& path) const {
    uint64_t bytes = uint64_t{options_.streams} * arenas_.arena(0).size() + 2 * head_parameters();
    if (options_.resumable) bytes += layer_parameters() * config_.layers;
    const std::filesystem::path folder = path.has_parent_path() ? path.parent_path() : ".";
    std::error_code error;
    const auto space = std::filesystem::space(folder, error);
    if (error) throw formats::Error(folder, "cannot write there", error.message());
    // What an unfinished run has left is either used or removed.
    const uint64_t available =
        space.available + (options_.resumable ? PartialFolder::bytes_beside(path) : 0);
    if (available < bytes) {
      throw formats::Error(path, "disk",
                           "needs " + std::to_string(bytes >> 20) + " MiB, and " +
                               std::to_string(available >> 20) + " are free");
    }
  }

  std::string key(const std::string& rounder) const {
    return options_.identity + "\nsource " + options_.source_sha256 + "\nscheme " +
           options_.scheme.name() + "\nrotations " + digest(rotations_) + "\nrounding " + rounder +
           "\ncontract " + std::to_string(formats::kPackedContractVersion) + "\n";
  }

  void pack_layer(uint32_t layer, Rounder& rounder, const PartialRun* partial) {
    LayerWeights weights = model_.load_layer(layer);
    std::vector<float> bias = weights.q_bias;
    bias.insert(bias.end(), weights.k_bias.begin(), weights.k_bias.end());
    bias.insert(bias.end(), weights.v_bias.begin(), weights.v_bias.end());
    const auto gain = [&](uint32_t field, const std::vector<float>& values) {
      if (!values.empty()) buffer_.set_layer(layer, field, buffer_.append(values));
    };
    gain(layer_field::attention_norm, weights.attention_norm);
    gain(layer_field::ffn_norm, weights.ffn_norm);
    gain(layer_field::q_norm, weights.q_norm);
    gain(layer_field::k_norm, weights.k_norm);

    std::optional<LayerRows> rows = partial != nullptr ? partial->load(layer) : std::nullopt;
    if (rows) {
      check_rows(layer, *rows);
      rounder.resume_layer(layer, std::move(weights), *rows, options_.scheme, workers_);
    } else {
      rows = rounder.round_layer(layer, std::move(weights), options_.scheme, workers_);
      check_rows(layer, *rows);
      if (partial != nullptr) partial->store(layer, *rows);
    }
    place_layer(layer, *rows, bias);
  }

  void check_rows(uint32_t layer, const LayerRows& rows) const {
    for (const MatrixKind kind : kKinds) {
      const auto& matrix = rows[static_cast<size_t>(kind)];
      const TileLayout shape = layout({layer, kind});
      const size_t groups = shape.precision.grouped ? shape.groups() : 0;
      const bool fits = std::all_of(matrix.begin(), matrix.end(), [&](const QuantizedRow& row) {
        return row.q.size() == shape.inputs && row.multipliers.size() == groups;
      });
      if (matrix.size() != outputs(kind) || !fits) {
        throw formats::Error("rounded rows of layer " + std::to_string(layer) + ", " +
                             std::string(name_of(kind)) + ", have another shape");
      }
    }
  }

  void place_layer(uint32_t layer, const LayerRows& rows, const std::vector<float>& bias) {
    constexpr uint32_t kOffsets[] = {layer_field::qkv, layer_field::o, layer_field::gate_up,
                                     layer_field::down};
    constexpr uint32_t kPrecisions[] = {layer_field::qkv_precision, layer_field::o_precision,
                                        layer_field::gate_up_precision,
                                        layer_field::down_precision};
    for (const MatrixKind kind : kKinds) {
      const auto k = static_cast<size_t>(kind);
      const uint32_t offset = offsets_[layer * std::size(kKinds) + k];
      const TileLayout shape = layout({layer, kind});
      buffer_.set_layer(layer, kOffsets[k], offset);
      buffer_.set_layer(layer, kPrecisions[k], shape.precision.encode());
      for (uint32_t r = 0; r < rows[k].size(); ++r) {
        const Place at = place_of(kind, r, config_.ffn);
        arenas_.place(offset, shape, at.tile, at.line, rows[k][r],
                      shape.precision.bias ? bias[r] : 0);
      }
    }
  }

  void pack_lm_head(Rounder& rounder, uint64_t whole) {
    const std::string name =
        config_.tied_embeddings ? "model.embed_tokens.weight" : "lm_head.weight";
    const TileLayout shape = layout({config_.layers, MatrixKind::lm_head});
    for (uint32_t begin = 0; begin < config_.vocab; begin += kSliceRows) {
      Matrix slice(std::min(kSliceRows, config_.vocab - begin), config_.hidden);
      checkpoint_.read_rows_f32(name, begin, slice.rows(), slice.elements());
      const auto rows = rounder.round_lm_head(slice, options_.scheme, workers_);
      for (uint32_t r = 0; r < rows.size(); ++r) {
        const Place at = place_of(MatrixKind::lm_head, begin + r, 0);
        arenas_.place(head_offset_, shape, at.tile, at.line, rows[r], 0);
      }
      report(whole - head_parameters() + (begin + slice.rows()) * uint64_t{config_.hidden}, whole);
    }
    buffer_.set(kernels::model_field::lm_head, head_offset_);
  }

  void write(const std::filesystem::path& path, const std::string& rounding) {
    const std::span<const std::byte> model = buffer_.finish();
    formats::PackedModelInfo info{config_,
                                  checkpoint_.generation_defaults(),
                                  checkpoint_.tokenizer(),
                                  options_.scheme.name(),
                                  options_.source,
                                  options_.source_sha256,
                                  rotations_.empty() ? "" : digest(rotations_),
                                  rounding};
    info.config.context_length = context_;
    std::optional<formats::HiddenBasis> basis;
    if (!rotations_.residual.empty()) {
      const Matrix matrix = rotations_.residual.matrix();
      basis.emplace();
      basis->matrix.assign(matrix.elements().begin(), matrix.elements().end());
      basis->final_gain = original_.read_f32("model.norm.weight");
    }
    formats::PackedModelWriter writer(path, std::move(info), options_.streams,
                                      arenas_.arena(0).size(), model.size(), formats::DType::f16,
                                      std::move(basis));
    for (uint32_t s = 0; s < options_.streams; ++s) writer.write_arena(s, arenas_.arena(s));
    writer.write_model_buffer(model);
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
  const formats::Checkpoint& original_;
  const Rotations& rotations_;
  const formats::ModelConfig& config_;
  const PackOptions& options_;
  Workers& workers_;
  uint32_t context_;
  FloatModel model_;
  Arenas arenas_;
  ModelBuffer buffer_;
  std::vector<uint32_t> offsets_;  // [layer][kind]
  uint32_t head_offset_ = 0;
};

}  // namespace

void pack(const formats::Checkpoint& checkpoint, const std::filesystem::path& path,
          const PackOptions& options) {
  check_shapes(checkpoint.config());
  options.scheme.check_layers(checkpoint.config().layers);
  Workers workers(options.threads);
  const Rotations rotations =
      complete_rotations(options.rotations, checkpoint.config(), options.scheme.rotate_residual,
                         options.scheme.rotate_values, options.rotation_seed, workers);
  check_finite(checkpoint, workers);
  if (rotations.empty()) {
    Packer(checkpoint, checkpoint, rotations, options, workers).run(path);
  } else {
    const RotatedCheckpoint rotated(checkpoint, rotations, options.threads);
    Packer(rotated, checkpoint, rotations, options, workers).run(path);
  }
}

}  // namespace flexllm::quantizer
