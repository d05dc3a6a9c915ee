#include "kernels/twin/layers.h"

#include <algorithm>
#include <functional>

#include "kernels/twin/threads.h"

namespace flexllm::kernels::twin {
namespace {

// Tiles that one thread takes at a time: enough work to be worth a hand-over, few enough to
// balance.
constexpr uint32_t kTilesPerTask = 4;

void for_tiles(const LaunchView& launch, const Matrix& matrix,
               const std::function<void(uint32_t, const Tile&)>& body) {
  const uint32_t tasks = divide_up(matrix.tiles, kTilesPerTask);
  parallel_for(tasks, [&](size_t task) {
    const uint32_t begin = static_cast<uint32_t>(task) * kTilesPerTask;
    const uint32_t end = std::min(begin + kTilesPerTask, matrix.tiles);
    for (uint32_t t = begin; t < end; ++t) body(t, resolve_tile(launch, matrix, t));
  });
}

void linear(const LaunchView& launch, const Ops& ops, const Matrix& matrix,
            const Activations& input, Rows& output) {
  for_tiles(launch, matrix, [&](uint32_t t, const Tile& tile) {
    ops.linear_tile(tile, input, output.data() + size_t{t} * kTileRows, output.stride());
  });
}

// Consecutive rows of one sequence that read its keys and values together.
struct RowBlock {
  uint32_t begin = 0;
  uint32_t end = 0;
};

std::vector<RowBlock> row_blocks(const LaunchView& launch) {
  const uint32_t group = launch.model.heads / launch.model.kv_heads;
  const uint32_t most = std::clamp(32u / group, 1u, 8u);
  std::vector<RowBlock> blocks;
  const auto rows = static_cast<uint32_t>(launch.rows.size());
  for (uint32_t begin = 0; begin < rows;) {
    uint32_t end = begin + 1;
    while (end < rows && end - begin < most &&
           launch.rows[end].sequence == launch.rows[begin].sequence) {
      ++end;
    }
    blocks.push_back({begin, end});
    begin = end;
  }
  return blocks;
}

class LayerRun {
 public:
  LayerRun(const LaunchView& launch, const Ops& ops, Rows& x)
      : launch_(launch),
        model_(launch.model),
        ops_(ops),
        rows_(static_cast<uint32_t>(launch.rows.size())),
        x_(x),
        blocks_(row_blocks(launch)),
        hidden_(rows_, model_.hidden),
        qkv_(rows_, model_.qkv_rows()),
        attention_(rows_, model_.attention()),
        delta_(rows_, model_.hidden),
        gate_(rows_, size_t{row_tiles(model_.ffn)} * kTileRows),
        up_(rows_, size_t{row_tiles(model_.ffn)} * kTileRows),
        hidden_q_(rows_, model_.hidden),
        attention_q_(rows_, model_.attention()),
        ffn_q_(rows_, model_.ffn) {}

  void run(const Layer& layer, uint32_t index) {
    attention_part(layer, index);
    ffn_part(layer);
  }

 private:
  void attention_part(const Layer& layer, uint32_t index) {
    norm_and_quantize(layer.attention_norm, layer.qkv);
    linear(launch_, ops_, layer.qkv, hidden_q_.view(), qkv_);
    parallel_for(rows_, [&](size_t row) { rope_and_store(layer, index, row); });
    parallel_for(blocks_.size() * model_.kv_heads, [&](size_t task) {
      attend(index, blocks_[task / model_.kv_heads], static_cast<uint32_t>(task % model_.kv_heads));
    });
    parallel_for(rows_, [&](size_t row) {
      attention_q_.set(ops_, static_cast<uint32_t>(row), attention_[row],
                       layer.o.layout.precision.grid());
    });
    add_linear(layer.o, attention_q_);
  }

  void ffn_part(const Layer& layer) {
    norm_and_quantize(layer.ffn_norm, layer.gate_up);
    for_tiles(launch_, layer.gate_up, [&](uint32_t t, const Tile& tile) {
      Rows& half = t % 2 == 0 ? gate_ : up_;
      ops_.linear_tile(tile, hidden_q_.view(), half.data() + size_t{t / 2} * kTileRows,
                       half.stride());
    });
    parallel_for(rows_, [&](size_t row) {
      float* y = gate_[row];
      ops_.silu_gate(y, up_[row], model_.ffn, y);
      if (model_.hadamard_block != 0) {
        ops_.hadamard(y, model_.ffn, model_.hadamard_block, model_.hadamard_scale);
      }
      ffn_q_.set(ops_, static_cast<uint32_t>(row), y, layer.down.layout.precision.grid());
    });
    add_linear(layer.down, ffn_q_);
  }

  void norm_and_quantize(const float* gain, const Matrix& matrix) {
    parallel_for(rows_, [&](size_t row) {
      float* h = hidden_[row];
      ops_.rms_norm(x_[row], gain, model_.hidden, model_.rms_eps, h);
      hidden_q_.set(ops_, static_cast<uint32_t>(row), h, matrix.layout.precision.grid());
    });
  }

  void add_linear(const Matrix& matrix, const QuantizedRows& input) {
    linear(launch_, ops_, matrix, input.view(), delta_);
    parallel_for(rows_, [&](size_t row) { ops_.add(x_[row], delta_[row], model_.hidden); });
  }

  std::byte* layer_block(std::byte* page, uint32_t layer) const {
    return page + size_t{layer} * model_.kv.layer_words() * kWordBytes;
  }

  void rope_and_store(const Layer& layer, uint32_t index, size_t row) {
    const RowRecord& record = launch_.rows[row];
    const uint32_t d = model_.head_dim;
    const float* table = model_.rope + size_t{record.position} * rope_words(d) * kFloatsPerWord;
    float* q = qkv_[row];
    float* k = q + model_.attention();
    const float* v = k + size_t{model_.kv_heads} * d;
    for (uint32_t h = 0; h < model_.heads; ++h) rotate(q + size_t{h} * d, layer.q_norm, table);
    for (uint32_t h = 0; h < model_.kv_heads; ++h) rotate(k + size_t{h} * d, layer.k_norm, table);

    const KvLayout& kv = model_.kv;
    const uint32_t token = record.position % kPageTokens;
    std::byte* block =
        layer_block(launch_.pages[record.sequence][record.position / kPageTokens], index);
    const size_t record_bytes = size_t{kv.token_words()} * kWordBytes;
    const uint32_t padded = kv.head_words() * kWordBytes;
    auto* scales = reinterpret_cast<float*>(block + size_t{token} * kv.scale_words() * kWordBytes);
    auto* keys =
        reinterpret_cast<int8_t*>(block + size_t{kv.keys()} * kWordBytes + token * record_bytes);
    auto* values =
        reinterpret_cast<int8_t*>(block + size_t{kv.values()} * kWordBytes + token * record_bytes);
    std::fill_n(scales, kv.scale_words() * kFloatsPerWord, 0.0f);
    for (uint32_t h = 0; h < model_.kv_heads; ++h) {
      const size_t at = size_t{h} * d;
      const size_t out = size_t{h} * padded;
      scales[h] = ops_.quantize_head(k + at, d, padded, keys + out);
      scales[model_.kv_heads + h] = ops_.quantize_head(v + at, d, padded, values + out);
    }
  }

  void rotate(float* head, const float* norm, const float* table) const {
    if (norm != nullptr) ops_.rms_norm(head, norm, model_.head_dim, model_.rms_eps, head);
    ops_.rope(head, table, model_.head_dim);
  }

  void attend(uint32_t index, RowBlock block, uint32_t kv_head) {
    const uint32_t group = model_.heads / model_.kv_heads;
    const uint32_t queries = (block.end - block.begin) * group;
    const uint32_t padded_dim = model_.kv.head_words() * kWordBytes;
    const uint32_t longest = launch_.rows[block.end - 1].position + 1;

    thread_local std::vector<int8_t> q;
    thread_local std::vector<float> scale;
    thread_local std::vector<uint32_t> lengths;
    thread_local std::vector<float*> out;
    thread_local std::vector<std::byte*> pages;
    thread_local std::vector<float> scores;
    q.resize(size_t{queries} * padded_dim);
    scale.resize(queries);
    lengths.resize(queries);
    out.resize(queries);
    const auto& sequence_pages = launch_.pages[launch_.rows[block.begin].sequence];
    pages.resize(divide_up(longest, kPageTokens));
    for (size_t p = 0; p < pages.size(); ++p) pages[p] = layer_block(sequence_pages[p], index);
    const auto padded = static_cast<uint32_t>(pages.size()) * kPageTokens;
    scores.resize(std::max(scores.size(), size_t{queries} * padded));

    for (uint32_t i = 0; i < queries; ++i) {
      const uint32_t row = block.begin + i / group;
      const size_t head = size_t{kv_head} * group + i % group;
      const float s = ops_.quantize_head(qkv_[row] + head * model_.head_dim, model_.head_dim,
                                         padded_dim, q.data() + size_t{i} * padded_dim);
      scale[i] = s * model_.inv_sqrt_head_dim;
      lengths[i] = launch_.rows[row].position + 1;
      out[i] = attention_[row] + head * model_.head_dim;
    }
    ops_.attention({.head_dim = model_.head_dim,
                    .queries = queries,
                    .q = q.data(),
                    .scale = scale.data(),
                    .lengths = lengths.data(),
                    .pages = pages.data(),
                    .kv_head = kv_head,
                    .kv_heads = model_.kv_heads,
                    .head_words = model_.kv.head_words(),
                    .scale_words = model_.kv.scale_words(),
                    .keys = model_.kv.keys(),
                    .values = model_.kv.values(),
                    .levels = static_cast<float>(model_.probability_levels),
                    .scores = scores.data(),
                    .padded = padded,
                    .out = out.data()});
  }

  const LaunchView& launch_;
  const Model& model_;
  const Ops& ops_;
  uint32_t rows_;
  Rows& x_;
  std::vector<RowBlock> blocks_;
  Rows hidden_, qkv_, attention_, delta_, gate_, up_;
  QuantizedRows hidden_q_, attention_q_, ffn_q_;
};

}  // namespace

Tile resolve_tile(const LaunchView& launch, const Matrix& matrix, uint32_t index) {
  const std::byte* base = launch.tile(matrix, index);
  const TileLayout& layout = matrix.layout;
  const auto at = [&](uint32_t word) { return base + size_t{word} * kWordBytes; };
  Tile tile;
  tile.two_planes = layout.precision.weight_planes == 2;
  tile.scales = reinterpret_cast<const float*>(at(layout.scales()));
  tile.weight_sums = reinterpret_cast<const float*>(at(layout.weight_sums()));
  if (layout.precision.bias) tile.bias = reinterpret_cast<const float*>(at(layout.bias()));
  if (layout.precision.grouped) {
    tile.multipliers = reinterpret_cast<const uint8_t*>(at(layout.multipliers()));
  }
  tile.planes[0] = reinterpret_cast<const uint8_t*>(at(layout.planes()));
  tile.planes[1] = reinterpret_cast<const uint8_t*>(at(layout.planes() + layout.plane_words()));
  return tile;
}

void run_layers(const LaunchView& launch, const Ops& ops, Rows& x) {
  if (launch.rows.empty()) return;
  LayerRun run(launch, ops, x);
  for (uint32_t l = 0; l < launch.model.layers.size(); ++l) {
    run.run(launch.model.layers[l], launch.layer_begin + l);
  }
}

}  // namespace flexllm::kernels::twin
