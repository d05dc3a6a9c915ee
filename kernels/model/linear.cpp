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

Shape shape_of(const ModelShape& model, Matrix matrix, const Precision& precision) {
  static constexpr const char* kNames[] = {"q k v", "o", "gate up", "down", "lm_head"};
  return {kNames[static_cast<size_t>(matrix)],
          model.inputs(matrix),
          model.outputs(matrix),
          model.tiles(matrix),
          matrix != Matrix::output && matrix != Matrix::down,
          matrix == Matrix::down && model.hadamard_block > 1,
          precision};
}

// The rows on their way from scratch to the activation memory.
class RowChain {
 public:
  RowChain(const Shape& shape, const Rates& rates, const ModelShape& model)
      : shape_(shape),
        words_(float_words(shape.inputs)),
        read_word_(1 / rates.scratch),
        transform_(kStageLatency * log2_of(model.hadamard_block) + model.hadamard_block / 16.0) {}

  struct Fill {
    double done;  // when the last row is in the memory
    double late;  // cycles that its steps waited for rows behind their time
  };

  // The next panel, of `rows` rows, is read from cycle `begin` on; its rows go into the memory from
  // `due` on, spread over `spread` cycles, or as they come if that is 0.
  Fill fill(uint32_t rows, double begin, double due, double spread) {
    double late = 0;
    double filled = begin;
    begin = std::max(begin, read_.free_at());
    const double step = spread / rows;
    for (uint32_t row = 0; row < rows; ++row, due += step) {
      Span span = read_.pass({begin, begin}, words_ * read_word_);
      note(0, span);
      if (shape_.normalized) {
        span = norm_.pass(span, kSumInterval * words_, words_);
        note(1, span);
      }
      if (shape_.transformed) {
        span = transform_.pass(span, words_);
        note(2, span);
      }
      span = quantize_.pass(span, words_, words_);
      note(3, span);
      if (spread > 0) {
        const double waits = std::max({0.0, span.first - due, span.last - due - step});
        late += waits;
        due += waits;
        span = {std::max(span.first, due), std::max(span.last, due + step)};
      }
      filled = fill_.pass(span, shape_.inputs / 16.0).last;
    }
    return {filled, late};
  }

  // The residuals of a panel: `words` words, in bursts of `burst`.
  void read_residuals(double words, double burst) {
    const double waiting = (kMemoryLatency / read_word_ + burst) / (kBursts * burst);
    read_.pass({0, 0}, words * read_word_ * std::max(1.0, waiting));
  }

  void report(RegionTime& out) const {
    out.modules.push_back({"read rows", 0, end_[0], read_.busy()});
    if (shape_.normalized) out.modules.push_back({"norm", begin_[1], end_[1], norm_.busy()});
    if (shape_.transformed) {
      out.modules.push_back({"hadamard", begin_[2], end_[2], transform_.busy()});
    }
    out.modules.push_back({"quantize", begin_[3], end_[3], quantize_.busy()});
  }

 private:
  void note(int at, const Span& span) {
    if (begin_[at] < 0) begin_[at] = span.first;
    end_[at] = span.last;
  }

  const Shape& shape_;
  double words_;
  double read_word_;
  Streaming read_{kMemoryLatency};
  Buffering norm_{kNormLatency};
  Streaming transform_;
  Buffering quantize_{kQuantizeLatency};
  Streaming fill_{kFillLatency};
  double begin_[4] = {-1, -1, -1, -1};
  double end_[4] = {};
};

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
                         Matrix matrix, const Precision& precision, uint32_t rows) {
  const Shape shape = shape_of(model, matrix, precision);
  RegionTime out;
  out.region = shape.name;
  RowChain chain(shape, rates, model);
  const bool added = matrix == Matrix::output || matrix == Matrix::down;

  const TileLayout tile{shape.inputs, shape.precision};
  const bool replayed = kernel.stage == Stage::prefill;
  const double compute = 1.0 * shape.precision.weight_planes * tile.plane_words() *
                         shape.precision.activation_planes * kTileRows * kInputsPerWord / kernel.wp;
  const double per_tile = kTileRows / static_cast<double>(kernel.outputs);
  const double store = store_cycles(kernel, matrix);
  // Of a tile; the dequantiser reads those of all arrays before a pass.
  const double parameter_words = shape.precision.bias ? 6 : 4;
  // Words of a panel on their way to the arrays; the next is filled in 2/8 to 7/8 of that.
  const double sent = 1.0 * divide_up(shape.tiles, kernel.bp) * divide_up(kernel.panel, kBlock) *
                      shape.precision.weight_planes * tile.plane_words();

  double load_free = kMemoryLatency;  // of the busiest weight port
  double array_free = 0;
  double array_before = 0;  // end of the pass before the last: its buffer takes the next tile
  double dequantized = 0;
  double array_busy = 0;
  double load_busy = 0;
  double dequantize_busy = 0;
  double array_begin = -1;
  double stored = 0;
  double filled = chain.fill(std::min(kernel.panel, rows), 0, 0, 0).done;
  out.filled = filled;
  for (uint32_t panel = 0; panel < rows; panel += kernel.panel) {
    const uint32_t in_panel = std::min(kernel.panel, rows - panel);
    array_free = std::max(array_free, filled + kFeedLatency);
    const uint32_t next = panel + in_panel;
    if (added) {
      chain.read_residuals(2.0 * shape.tiles * in_panel,
                           std::min(2.0 * kernel.bp, 2.0 * shape.tiles));
    }
    if (next < rows) {
      const RowChain::Fill fill = chain.fill(std::min(kernel.panel, rows - next), array_free,
                                             array_free + sent / 4, sent * 5 / 8);
      filled = fill.done;
      // The arrays wait with the fill.
      if (array_begin < 0) array_begin = array_free;
      array_free += fill.late;
    }
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
      for (uint32_t block = 0; block < in_panel; block += kBlock) {
        const uint32_t in_block = std::min(kBlock, in_panel - block);
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
  }
  chain.report(out);
  out.modules.push_back({"load tiles", 0, load_free, load_busy});
  out.modules.push_back({"multiply", array_begin, array_free, array_busy});
  out.modules.push_back({"dequantize", array_begin, dequantized, dequantize_busy});
  const double results = shape.outputs * (matrix == Matrix::gate_up ? 0.5 : 1.0);
  out.modules.push_back({"store", array_begin, stored, rows * results / kFloatsPerWord});
  out.cycles = stored + kRegionTurn;
  out.traffic.weights = 1.0 * divide_up(rows, kernel.panel) * shape.tiles * tile.words();
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
