#include "kernels/tests/random_case.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "kernels/contract/numerics.h"

namespace flexllm::kernels {
namespace {

constexpr uint32_t kWordsPerPage = 4096 / kWordBytes;  // buffers are multiples of 4 KiB

uint32_t uniform(std::mt19937& random, uint32_t low, uint32_t high) {
  return low + static_cast<uint32_t>(random() % (high - low + 1));
}

// A multiple of `step` in low..high.
uint32_t uniform_step(std::mt19937& random, uint32_t low, uint32_t high, uint32_t step) {
  return uniform(random, divide_up(low, step), high / step) * step;
}

bool one_in(std::mt19937& random, uint32_t n) { return random() % n == 0; }

// Roughly normal with standard deviation 1: the same bits with every standard library.
float normal(std::mt19937& random) {
  int32_t sum = 0;
  for (int i = 0; i < 12; ++i) sum += static_cast<int32_t>(random() >> 16);
  return static_cast<float>(sum - 6 * 65535) / 65536.0f;
}

float uniform_float(std::mt19937& random, float low, float high) {
  return low + (high - low) * static_cast<float>(random() >> 8) / 16777216.0f;
}

void resize_to_pages(CardBuffer& buffer, uint32_t words) {
  buffer.resize(size_t{divide_up(words, kWordsPerPage)} * kWordsPerPage, CardWord{});
}

void fill_with_noise(std::mt19937& random, CardBuffer& buffer) {
  for (CardWord& word : buffer) {
    for (uint32_t& field : word.field) field = static_cast<uint32_t>(random());
    if (one_in(random, 4)) std::fill(std::begin(word.field), std::end(word.field), 0x7fc00000u);
  }
}

uint32_t append_floats(CardBuffer& buffer, const std::vector<float>& values) {
  const auto word = static_cast<uint32_t>(buffer.size());
  buffer.resize(buffer.size() + float_words(static_cast<uint32_t>(values.size())), CardWord{});
  std::copy(values.begin(), values.end(), floats_at(buffer, word));
  return word;
}

// Writes row `row` of tile `at` (its first word) with random weights.
void build_tile_row(std::mt19937& random, CardBuffer& arena, uint32_t at, uint32_t row,
                    const TileLayout& tile) {
  const Precision& precision = tile.precision;
  const int32_t offset = precision.weight_offset();
  const float deviation = static_cast<float>(offset) / 3.0f;
  int64_t weight_sum = 0;
  uint32_t multiplier = 1;
  for (uint32_t i = 0; i < tile.inputs; ++i) {
    const uint32_t group = i / kGroupInputs;
    if (precision.grouped && i % kGroupInputs == 0) {
      multiplier = one_in(random, 8) ? kMaxMultiplier : uniform(random, 1, kMaxMultiplier);
      reinterpret_cast<uint8_t*>(
          bytes_at(arena, at + tile.multipliers()))[group * kTileRows + row] =
          static_cast<uint8_t>(multiplier);
    }
    int32_t w = static_cast<int32_t>(std::lround(normal(random) * deviation));
    w = std::clamp(w, -offset, offset - 1);
    weight_sum += int64_t{w} * multiplier;
    const auto code = static_cast<uint32_t>(w + offset);
    for (uint32_t plane = 0; plane < precision.weight_planes; ++plane) {
      const uint32_t nibble = (code >> (4 * plane)) & 15u;
      const uint32_t word = at + tile.planes() + plane * tile.plane_words() + i / kInputsPerWord;
      uint8_t* byte = reinterpret_cast<uint8_t*>(bytes_at(arena, word)) + 4 * (row % 16) + i % 4;
      *byte = static_cast<uint8_t>(row < 16 ? (*byte & 0xf0u) | nibble
                                            : (*byte & 0x0fu) | (nibble << 4));
    }
  }
  const float steps = deviation * (precision.grouped ? 32.0f : 1.0f);
  const float scale =
      uniform_float(random, 0.5f, 1.5f) / (steps * std::sqrt(static_cast<float>(tile.inputs)));
  floats_at(arena, at + tile.scales())[row] = scale;
  floats_at(arena, at + tile.weight_sums())[row] =
      static_cast<float>(double{scale} * static_cast<double>(weight_sum));
  if (precision.bias) floats_at(arena, at + tile.bias())[row] = 0.1f * normal(random);
}

// A row of padding: offset in every plane, multiplier 1, zero elsewhere.
void build_padding_row(CardBuffer& arena, uint32_t at, uint32_t row, const TileLayout& tile) {
  const auto code = static_cast<uint32_t>(tile.precision.weight_offset());
  for (uint32_t plane = 0; plane < tile.precision.weight_planes; ++plane) {
    const uint32_t nibble = (code >> (4 * plane)) & 15u;
    for (uint32_t i = 0; i < tile.inputs; ++i) {
      const uint32_t word = at + tile.planes() + plane * tile.plane_words() + i / kInputsPerWord;
      uint8_t* byte = reinterpret_cast<uint8_t*>(bytes_at(arena, word)) + 4 * (row % 16) + i % 4;
      *byte = static_cast<uint8_t>(*byte | (row < 16 ? nibble : nibble << 4));
    }
  }
  if (!tile.precision.grouped) return;
  for (uint32_t group = 0; group < tile.groups(); ++group) {
    bytes_at(arena, at + tile.multipliers())[group * kTileRows + row] = 1;
  }
}

// Appends a matrix of `tiles` tiles to the arenas; `true_rows(t)` says how many rows of tile t are
// not padding. Returns its offset, the same in every arena.
template <typename TrueRows>
uint32_t append_matrix(std::mt19937& random, std::vector<CardBuffer>& arenas, uint32_t tiles,
                       const TileLayout& tile, TrueRows true_rows) {
  const auto streams = static_cast<uint32_t>(arenas.size());
  const auto offset = static_cast<uint32_t>(arenas[0].size());
  for (CardBuffer& arena : arenas) {
    arena.resize(arena.size() + size_t{divide_up(tiles, streams)} * tile.words(), CardWord{});
  }
  for (uint32_t t = 0; t < tiles; ++t) {
    const uint32_t at = offset + (t / streams) * tile.words();
    for (uint32_t row = 0; row < kTileRows; ++row) {
      if (row < true_rows(t)) {
        build_tile_row(random, arenas[t % streams], at, row, tile);
      } else {
        build_padding_row(arenas[t % streams], at, row, tile);
      }
    }
  }
  return offset;
}

uint32_t rows_of_tile(uint32_t rows, uint32_t tile) {
  return std::min(kTileRows, rows - tile * kTileRows);
}

std::vector<float> random_gain(std::mt19937& random, uint32_t size) {
  std::vector<float> gain(size);
  for (float& g : gain) g = uniform_float(random, 0.5f, 1.5f);
  return gain;
}

uint32_t append_rope(CardBuffer& model, const ModelShape& shape) {
  const auto start = static_cast<uint32_t>(model.size());
  const uint32_t half = shape.head_dim / 2;
  for (uint32_t p = 0; p < shape.context; ++p) {
    std::vector<float> row(shape.head_dim);
    for (uint32_t i = 0; i < half; ++i) {
      const double angle = p * std::pow(10000.0, -static_cast<double>(i) / half);
      row[i] = static_cast<float>(std::cos(angle));
      row[half + i] = static_cast<float>(std::sin(angle));
    }
    append_floats(model, row);
  }
  return start;
}

Precision random_precision(std::mt19937& random) {
  Precision p{uniform(random, 1, 2), uniform(random, 1, 2), one_in(random, 2), one_in(random, 3)};
  p.symmetric = one_in(random, 4);
  p.clip = one_in(random, 2) ? 0 : uniform(random, 0, 255);
  return p;
}

// A record of a token that an earlier launch has written.
void build_history(std::mt19937& random, const KvLayout& kv, CardBuffer& arena, uint32_t page_at,
                   uint32_t slot) {
  for (uint32_t l = 0; l < kv.layers; ++l) {
    const uint32_t at = page_at + l * kv.layer_words();
    float* scales = floats_at(arena, at + slot * kv.scale_words());
    std::fill(scales, scales + kv.scale_words() * kFloatsPerWord, 0.0f);
    for (uint32_t h = 0; h < 2 * kv.kv_heads; ++h) {
      scales[h] = one_in(random, 16) ? 0.0f : uniform_float(random, 0.002f, 0.03f);
    }
    for (const uint32_t part : {kv.keys(), kv.values()}) {
      int8_t* record = bytes_at(arena, at + part + slot * kv.token_words());
      std::fill(record, record + kv.token_words() * kWordBytes, int8_t{0});
      for (uint32_t h = 0; h < kv.kv_heads; ++h) {
        for (uint32_t i = 0; i < kv.head_dim; ++i) {
          record[h * kv.head_words() * kWordBytes + i] =
              static_cast<int8_t>(static_cast<int32_t>(uniform(random, 0, 254)) - 127);
        }
      }
    }
  }
}

void random_input_row(std::mt19937& random, float* row, uint32_t hidden) {
  const uint32_t kind = uniform(random, 0, 15);
  const float constant = normal(random);
  for (uint32_t i = 0; i < hidden; ++i) {
    row[i] = kind == 0 ? 0.0f : kind == 1 ? constant : normal(random);
  }
  if (kind == 2) row[uniform(random, 0, hidden - 1)] = 100.0f;  // an outlier channel
  if (kind == 3) row[uniform(random, 0, hidden - 1)] = 1e-39f;  // a denormal
}

std::vector<uint32_t> row_order(std::mt19937& random, const LaunchShape& launch) {
  std::vector<uint32_t> order;
  for (uint32_t s = 0; s < launch.sequences.size(); ++s) {
    order.insert(order.end(), launch.sequences[s].rows, s);
  }
  if (launch.interleave) {
    for (size_t i = order.size(); i > 1; --i) std::swap(order[i - 1], order[random() % i]);
  }
  return order;
}

// Ids of the sequences' pages: page k of sequence s lies in stream (s + k) mod streams.
std::vector<uint32_t> striped_ids(const LaunchShape& launch, uint32_t streams) {
  std::vector<uint32_t> used(streams, 0);
  std::vector<uint32_t> ids;
  for (uint32_t s = 0; s < launch.sequences.size(); ++s) {
    const SequenceRows& sequence = launch.sequences[s];
    const uint32_t count = divide_up(sequence.history + sequence.rows, kPageTokens);
    for (uint32_t k = 0; k < count; ++k) {
      const uint32_t stream = (s + k) % streams;
      ids.push_back(used[stream]++ * streams + stream);
    }
  }
  return ids;
}

}  // namespace

float* floats_at(CardBuffer& buffer, uint32_t word) {
  return reinterpret_cast<float*>(buffer.data() + word);
}
uint32_t* fields_at(CardBuffer& buffer, uint32_t word) { return buffer.data()[word].field; }
int8_t* bytes_at(CardBuffer& buffer, uint32_t word) {
  return reinterpret_cast<int8_t*>(buffer.data() + word);
}

ModelShape random_shape(std::mt19937& random, const CaseLimits& limits) {
  ModelShape shape;
  shape.layers = uniform(random, 1, limits.layers);
  shape.hidden = uniform_step(random, 4, limits.hidden, 4);
  shape.kv_heads = uniform(random, 1, limits.kv_heads);
  shape.heads = shape.kv_heads * uniform(random, 1, limits.heads / shape.kv_heads);
  shape.head_dim = uniform_step(random, 8, limits.head_dim, 8);
  shape.ffn = one_in(random, 3) && limits.ffn >= 172 ? 172 : uniform_step(random, 4, limits.ffn, 4);
  shape.vocab = one_in(random, 4) ? uniform(random, 1, std::min(80u, limits.vocab))
                                  : uniform(random, 1, limits.vocab);
  shape.context = limits.context;
  uint32_t block = one_in(random, 3) ? 0 : 1;
  while (block != 0 && block < 512 && shape.ffn % (2 * block) == 0 && !one_in(random, 8))
    block *= 2;
  shape.hadamard_block = block;
  shape.probability_bits = one_in(random, 2) ? 8 : 16;
  shape.head_norms = one_in(random, 2);
  for (Precision* p : {&shape.qkv, &shape.o, &shape.gate_up, &shape.down, &shape.lm_head}) {
    *p = random_precision(random);
  }
  return shape;
}

LaunchShape random_launch(std::mt19937& random, const CaseLimits& limits, const ModelShape& shape) {
  static constexpr uint32_t kEdges[] = {1, 2, 15, 16, 17, 31, 32, 33, 63, 64, 65};
  LaunchShape launch;
  const uint32_t sequences = uniform(random, 1, std::min(limits.sequences, limits.rows));
  uint32_t left = uniform(random, sequences, limits.rows);
  if (one_in(random, 2)) left = std::clamp(kEdges[random() % 11], sequences, limits.rows);
  for (uint32_t s = 0; s < sequences; ++s) {
    SequenceRows rows;
    const uint32_t most = left - (sequences - 1 - s);
    rows.rows = s + 1 == sequences ? most : uniform(random, 1, most);
    rows.rows = std::min(rows.rows, shape.context);
    left -= rows.rows;
    const uint32_t room = shape.context - rows.rows;
    rows.history = one_in(random, 3)   ? 0
                   : one_in(random, 2) ? std::min(room, kEdges[random() % 11])
                                       : uniform(random, 0, room);
    launch.sequences.push_back(rows);
  }
  launch.layer_begin = one_in(random, 4) ? uniform(random, 0, shape.layers) : 0;
  launch.layer_end =
      one_in(random, 4) ? uniform(random, launch.layer_begin, shape.layers) : shape.layers;
  launch.interleave = one_in(random, 2);
  return launch;
}

twin::Buffers Case::buffers() {
  const auto span = [](CardBuffer& buffer) {
    return twin::Span{reinterpret_cast<std::byte*>(buffer.data()), buffer.size() * kWordBytes};
  };
  weight_spans_.clear();
  kv_spans_.clear();
  for (CardBuffer& arena : weights) weight_spans_.push_back(span(arena));
  for (CardBuffer& arena : kv) kv_spans_.push_back(span(arena));
  return twin::Buffers{span(desc),    span(model),   span(result),
                       span(scratch), weight_spans_, kv_spans_};
}

void build_model(std::mt19937& random, const ModelShape& shape, uint32_t weight_streams,
                 Case& result) {
  CardBuffer& model = result.model;
  model.assign(2 + shape.layers, CardWord{});
  result.weights.assign(weight_streams, CardBuffer{});
  const auto matrix = [&](uint32_t rows, uint32_t inputs, Precision precision) {
    return append_matrix(random, result.weights, row_tiles(rows), TileLayout{inputs, precision},
                         [&](uint32_t t) { return rows_of_tile(rows, t); });
  };
  for (uint32_t l = 0; l < shape.layers; ++l) {
    uint32_t record[layer_field::fields] = {};
    record[layer_field::qkv] = matrix(shape.qkv_rows(), shape.hidden, shape.qkv);
    record[layer_field::o] = matrix(shape.hidden, shape.attention(), shape.o);
    record[layer_field::gate_up] = append_matrix(
        random, result.weights, gate_up_tiles(shape.ffn), TileLayout{shape.hidden, shape.gate_up},
        [&](uint32_t t) { return rows_of_tile(shape.ffn, t / 2); });
    record[layer_field::down] = matrix(shape.hidden, shape.ffn, shape.down);
    record[layer_field::qkv_precision] = shape.qkv.encode();
    record[layer_field::o_precision] = shape.o.encode();
    record[layer_field::gate_up_precision] = shape.gate_up.encode();
    record[layer_field::down_precision] = shape.down.encode();
    record[layer_field::attention_norm] = append_floats(model, random_gain(random, shape.hidden));
    record[layer_field::ffn_norm] = append_floats(model, random_gain(random, shape.hidden));
    if (shape.head_norms && l % 2 == 0) {
      record[layer_field::q_norm] = append_floats(model, random_gain(random, shape.head_dim));
      record[layer_field::k_norm] = append_floats(model, random_gain(random, shape.head_dim));
    }
    std::copy(std::begin(record), std::end(record), fields_at(model, 2 + l));
  }
  const uint32_t lm_head = matrix(shape.vocab, shape.hidden, shape.lm_head);
  const uint32_t rope = append_rope(model, shape);
  const uint32_t final_norm = append_floats(model, random_gain(random, shape.hidden));

  uint32_t* header = fields_at(model, 0);
  header[model_field::magic] = kModelMagic;
  header[model_field::version] = kContractVersion;
  header[model_field::layers] = shape.layers;
  header[model_field::hidden] = shape.hidden;
  header[model_field::heads] = shape.heads;
  header[model_field::kv_heads] = shape.kv_heads;
  header[model_field::head_dim] = shape.head_dim;
  header[model_field::ffn] = shape.ffn;
  header[model_field::vocab] = shape.vocab;
  header[model_field::context] = shape.context;
  header[model_field::rms_eps] = bits_of(1e-5f);
  header[model_field::inv_sqrt_head_dim] =
      bits_of(1.0f / std::sqrt(static_cast<float>(shape.head_dim)));
  header[model_field::hadamard_block] = shape.hadamard_block;
  header[model_field::hadamard_scale] = bits_of(
      shape.hadamard_block == 0 ? 0.0f
                                : 1.0f / std::sqrt(static_cast<float>(shape.hadamard_block)));
  header[model_field::probability_bits] = shape.probability_bits;
  header[model_field::weight_streams] = weight_streams;
  header[model_field::rope] = rope;
  header[model_field::layer_table] = 2;
  header[model_field::final_norm] = final_norm;
  header[model_field::lm_head] = lm_head;
  header[model_field::lm_head_precision] = shape.lm_head.encode();
  resize_to_pages(model, static_cast<uint32_t>(model.size()));
  fields_at(model, 0)[model_field::words] = static_cast<uint32_t>(model.size());
  for (CardBuffer& arena : result.weights) {
    resize_to_pages(arena, static_cast<uint32_t>(arena.size()));
  }
}

void build_launch(std::mt19937& random, const ModelShape& shape, const LaunchShape& launch,
                  uint32_t kv_streams, Case& result) {
  const KvLayout kv{shape.layers, shape.kv_heads, shape.head_dim};
  const auto sequences = static_cast<uint32_t>(launch.sequences.size());
  const std::vector<uint32_t> order = row_order(random, launch);
  const auto rows = static_cast<uint32_t>(order.size());

  // Pages: every sequence gets its own, drawn from a few more than are needed.
  uint32_t pages = 3;
  uint32_t most_pages = 1;
  for (const SequenceRows& s : launch.sequences) {
    const uint32_t count = divide_up(s.history + s.rows, kPageTokens);
    pages += count;
    most_pages = std::max(most_pages, count);
  }
  std::vector<uint32_t> ids(pages);
  std::iota(ids.begin(), ids.end(), 0u);
  for (size_t i = ids.size(); i > 1; --i) std::swap(ids[i - 1], ids[random() % i]);
  if (launch.striped) {
    ids = striped_ids(launch, kv_streams);
    pages = *std::max_element(ids.begin(), ids.end()) + 1;
  }
  result.kv.assign(kv_streams, CardBuffer{});
  for (CardBuffer& arena : result.kv) {
    resize_to_pages(arena, divide_up(pages, kv_streams) * kv.page_words());
    fill_with_noise(random, arena);
  }

  CardBuffer& desc = result.desc;
  const uint32_t stride = divide_up(most_pages, kFieldsPerWord) + (one_in(random, 3) ? 1 : 0);
  const uint32_t row_table = 2;
  const uint32_t page_tables = row_table + rows;
  const uint32_t inputs = page_tables + sequences * stride;
  desc.clear();
  resize_to_pages(desc, inputs + rows * float_words(shape.hidden));
  fill_with_noise(random, desc);

  uint32_t next_id = 0;
  for (uint32_t s = 0; s < sequences; ++s) {
    const SequenceRows& sequence = launch.sequences[s];
    uint32_t* table = fields_at(desc, page_tables + s * stride);
    const uint32_t count = divide_up(sequence.history + sequence.rows, kPageTokens);
    for (uint32_t i = 0; i < count; ++i) table[i] = ids[next_id++];
    for (uint32_t t = 0; t < sequence.history; ++t) {
      const uint32_t id = table[t / kPageTokens];
      build_history(random, kv, result.kv[id % kv_streams], (id / kv_streams) * kv.page_words(),
                    t % kPageTokens);
    }
  }

  uint32_t result_words = 1;
  std::vector<uint32_t> next_position;
  for (const SequenceRows& s : launch.sequences) next_position.push_back(s.history);
  const uint32_t slots = rows + uniform(random, 0, 2);
  const uint32_t first_slot = uniform(random, 0, slots - rows);
  for (uint32_t r = 0; r < rows; ++r) {
    uint32_t* row = fields_at(desc, row_table + r);
    uint32_t flags = 0;
    if (launch.outputs) {
      flags = uniform(random, 0, 15);
    } else if (r + launch.result_rows >= rows) {
      flags = row_flag::row_result;
    }
    row[row_field::sequence] = order[r];
    row[row_field::position] = next_position[order[r]]++;
    row[row_field::flags] = flags;
    row[row_field::target] = uniform(random, 0, shape.vocab - 1);
    row[row_field::logits_slot] = first_slot + (rows - 1 - r);
    const auto reserve = [&](uint32_t field, bool wanted, uint32_t words) {
      if (!wanted) return;
      row[field] = result_words;
      result_words += words;
    };
    reserve(row_field::residual, (flags & row_flag::residual) != 0, float_words(shape.hidden));
    reserve(row_field::final_norm, (flags & row_flag::final_norm) != 0, float_words(shape.hidden));
    reserve(row_field::row_result, (flags & row_flag::needs_logits) != 0,
            (flags & row_flag::row_result) != 0 ? kRowResultWords : 1);
    random_input_row(random, floats_at(desc, inputs + r * float_words(shape.hidden)), shape.hidden);
  }
  result.result.clear();
  resize_to_pages(result.result, result_words);
  fill_with_noise(random, result.result);

  const uint32_t logits = uniform(random, 0, 3);
  const uint32_t work = logits + slots * logits_words(shape.vocab) + uniform(random, 0, 3);
  result.scratch.clear();
  resize_to_pages(result.scratch,
                  work + work_words(rows, shape.hidden, shape.attention(), shape.ffn));
  fill_with_noise(random, result.scratch);

  uint32_t* header = fields_at(desc, 0);
  header[launch_field::magic] = kLaunchMagic;
  header[launch_field::version] = kContractVersion;
  header[launch_field::id] = static_cast<uint32_t>(random());
  header[launch_field::layer_begin] = launch.layer_begin;
  header[launch_field::layer_end] = launch.layer_end;
  header[launch_field::rows] = rows;
  header[launch_field::sequences] = sequences;
  header[launch_field::row_table] = row_table;
  header[launch_field::page_tables] = page_tables;
  header[launch_field::page_table_stride] = stride;
  header[launch_field::inputs] = inputs;
  header[launch_field::kv_streams] = kv_streams;
  header[launch_field::kv_pages] = pages;
  header[launch_field::logits] = logits;
  header[launch_field::logits_slots] = slots;
  header[launch_field::work] = work;
  header[launch_field::result_words] = static_cast<uint32_t>(result.result.size());
}

Case random_case(uint32_t seed, const CaseLimits& limits, uint32_t weight_streams,
                 uint32_t kv_streams) {
  std::mt19937 random(seed);
  Case result;
  const ModelShape shape = random_shape(random, limits);
  build_model(random, shape, weight_streams, result);
  build_launch(random, shape, random_launch(random, limits, shape), kv_streams, result);
  return result;
}

}  // namespace flexllm::kernels
