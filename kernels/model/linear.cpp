#include <algorithm>

#include "kernels/model/chain.h"
#include "kernels/model/latencies.h"
#include "kernels/model/stages.h"

namespace flexllm::kernels::model {
namespace {

constexpr uint32_t kBlock = 16;  // rows of an activation word

struct Shape {
  const char* name;
  uint32_t inputs;
  uint32_t outputs;
  uint32_t tiles;
  bool normalized;
  bool transformed;
  Precision precision;
};

Shape shape_of(const ModelShape& m, Matrix matrix) {
  switch (matrix) {
    case Matrix::qkv:
      return {"q k v", m.hidden, m.qkv_rows(), row_tiles(m.qkv_rows()), true, false, m.linear};
    case Matrix::output:
      return {"o", m.attention(), m.hidden, row_tiles(m.hidden), false, false, m.linear};
    case Matrix::gate_up:
      return {"gate up", m.hidden, 2 * m.ffn, gate_up_tiles(m.ffn), true, false, m.linear};
    case Matrix::down:
      return {"down", m.ffn, m.hidden, row_tiles(m.hidden), false, m.hadamard_block > 1, m.linear};
    default:
      return {"lm_head", m.hidden, m.vocab, row_tiles(m.vocab), true, false, m.lm_head};
  }
}

// The rows on their way from scratch to the activation memory; when the last is there.
double fill_activations(const Shape& shape, const Rates& rates, const ModelShape& model,
                        uint32_t rows, RegionTime& out) {
  const double words = float_words(shape.inputs);
  const double fed = shape.inputs / 16.0;
  Streaming read(kMemoryLatency);
  Buffering norm(kNormLatency);
  Streaming transform(kStageLatency * log2_of(model.hadamard_block) + model.hadamard_block / 16.0);
  Buffering quantize(kQuantizeLatency);
  Streaming fill(kFillLatency);
  double filled = 0;
  double begin[4] = {-1, -1, -1, -1};
  double end[4] = {};
  const auto note = [&](int at, const Span& span) {
    if (begin[at] < 0) begin[at] = span.first;
    end[at] = span.last;
  };
  for (uint32_t row = 0; row < rows; ++row) {
    const double begins = row * words / rates.scratch;
    Span span = read.pass({begins, begins}, words / rates.scratch);
    note(0, span);
    if (shape.normalized) {
      span = norm.pass(span, kSumInterval * words, words);
      note(1, span);
    }
    if (shape.transformed) {
      span = transform.pass(span, words);
      note(2, span);
    }
    span = quantize.pass(span, words, words);
    note(3, span);
    filled = fill.pass(span, fed).last;
  }
  out.modules.push_back({"read rows", 0, end[0], read.busy()});
  if (shape.normalized) out.modules.push_back({"norm", begin[1], end[1], norm.busy()});
  if (shape.transformed) out.modules.push_back({"hadamard", begin[2], end[2], transform.busy()});
  out.modules.push_back({"quantize", begin[3], end[3], quantize.busy()});
  return filled;
}

// Cycles of what comes behind the dequantiser, for a tile and row.
double store_cycles(const Kernel& kernel, Matrix matrix) {
  switch (matrix) {
    case Matrix::qkv:
      return kTileRows / 8.0;
    case Matrix::gate_up:
      return std::max(2.0, 0.5 * kTileRows / (kernel.outputs / 2.0));
    default:
      return 2.0;
  }
}

// From the last output tile to the last word written.
double store_latency(Matrix matrix) {
  switch (matrix) {
    case Matrix::qkv:
      return kStoreLatency + kHeadsLatency;
    case Matrix::gate_up:
      return kStoreLatency + kSiluLatency;
    default:
      return kStoreLatency;
  }
}

}  // namespace

RegionTime linear_region(const Kernel& kernel, const Rates& rates, const ModelShape& model,
                         Matrix matrix, uint32_t rows) {
  const Shape shape = shape_of(model, matrix);
  RegionTime out;
  out.region = shape.name;
  const double filled = fill_activations(shape, rates, model, rows, out);

  const TileLayout tile{shape.inputs, shape.precision};
  const uint32_t blocks = divide_up(rows, kBlock);
  const bool replayed = kernel.stage == Stage::prefill;
  const double compute = 1.0 * shape.precision.weight_planes * tile.plane_words() *
                         shape.precision.activation_planes * kTileRows * kInputsPerWord / kernel.wp;
  const double per_tile = kTileRows / static_cast<double>(kernel.outputs);
  const double store = store_cycles(kernel, matrix);
  // Of a tile; the dequantiser reads those of all arrays before a pass.
  const double parameter_words = shape.precision.bias ? 6 : 4;

  double load_free = kMemoryLatency;  // of the busiest weight port
  double array_free = filled + kFeedLatency;
  double array_before = 0;  // end of the pass before the last: its buffer takes the next tile
  double dequantized = 0;
  double array_busy = 0;
  double load_busy = 0;
  double dequantize_busy = 0;
  double array_begin = -1;
  double stored = 0;
  for (uint32_t begin = 0; begin < shape.tiles; begin += kernel.bp) {
    const uint32_t arrays = std::min(kernel.bp, shape.tiles - begin);
    const double words = static_cast<double>(divide_up(arrays, kernel.weight_ports())) *
                         tile.words() / rates.weights;
    const double load_begin = replayed ? std::max(load_free, array_before) : load_free;
    double loaded = load_begin + words;
    if (!replayed) {
      // Words pass straight through: a port runs ahead of its array by its streams only.
      loaded = std::max(load_begin, array_free - kPrefetchWords / rates.weights) + words;
    }
    load_busy += words;
    array_before = array_free;
    double at = replayed ? std::max(array_free, loaded) : array_free;
    dequantized += arrays * parameter_words;
    if (array_begin < 0) array_begin = at;
    for (uint32_t block = 0; block < blocks; ++block) {
      const uint32_t in_block = std::min(kBlock, rows - block * kBlock);
      const double cycles = compute * divide_up(in_block, kernel.tp);
      double end = at + cycles;
      if (!replayed) end = std::max(end, loaded);
      array_busy += cycles;
      const double drain = arrays * in_block * std::max(per_tile, store);
      dequantized = std::max(end + kFoldLatency, dequantized) + drain;
      dequantize_busy += arrays * in_block * per_tile;
      // An array hands over its rows before it begins the block after the next.
      at = std::max(end, dequantized - drain - kFoldLatency);
    }
    load_free = loaded;
    array_free = at;
    stored = dequantized + store_latency(matrix);
  }
  out.filled = filled;
  out.modules.push_back({"load tiles", 0, load_free, load_busy});
  out.modules.push_back({"multiply", array_begin, array_free, array_busy});
  out.modules.push_back({"dequantize", array_begin, dequantized, dequantize_busy});
  const double results = shape.outputs * (matrix == Matrix::gate_up ? 0.5 : 1.0);
  out.modules.push_back({"store", array_begin, stored, rows * results / kFloatsPerWord});
  out.cycles = stored + kRegionTurn;
  out.traffic.weights = 1.0 * shape.tiles * tile.words();
  const bool added = matrix == Matrix::output || matrix == Matrix::down;
  out.traffic.scratch =
      rows * (float_words(shape.inputs) + (added ? 2.0 : 1.0) * results / kFloatsPerWord);
  if (matrix == Matrix::qkv) {
    const double cached = 2.0 * model.kv().token_words() + model.kv().scale_words();
    out.traffic.scratch = rows * (float_words(shape.inputs) + float_words(model.attention()));
    out.traffic.kv = rows * cached;
    out.traffic.io = rows * float_words(model.head_dim);
  }
  return out;
}

}  // namespace flexllm::kernels::model
