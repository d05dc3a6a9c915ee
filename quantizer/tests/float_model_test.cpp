// The float model against plain loops in double, its hooks, and its independence of the number of
// threads and of how text is cut into batches. tests/reference compares it with NumPy, and what it
// rounds with the quantised reference.
#include "quantizer/float_model/float_model.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <set>
#include <stdexcept>
#include <string>
#include <vector>

#include "formats/error.h"
#include "quantizer/algebra/products.h"
#include "quantizer/float_model/log_probabilities.h"
#include "quantizer/tests/memory_checkpoint.h"

namespace flexllm::quantizer {
namespace {

using testing::MemoryCheckpoint;
using Row = std::vector<double>;
using Rows = std::vector<Row>;

formats::ModelConfig float_config() {
  formats::ModelConfig config = testing::tiny_config();
  config.layers = 2;
  config.ffn = 80;
  config.vocab = 61;
  config.context_length = 4096;
  return config;
}

std::vector<uint32_t> random_tokens(size_t count, uint32_t vocab, uint32_t seed) {
  std::mt19937 random(seed);
  std::vector<uint32_t> tokens(count);
  for (uint32_t& token : tokens) token = static_cast<uint32_t>(random() % vocab);
  return tokens;
}

// The model of the page, one row and one element at a time.
class PlainModel {
 public:
  explicit PlainModel(const formats::Checkpoint& checkpoint)
      : checkpoint_(checkpoint), c_(checkpoint.config()) {}

  Rows logits(std::span<const uint32_t> tokens) const {
    const Row embedding = read("model.embed_tokens.weight");
    Rows x;
    for (const uint32_t token : tokens) {
      const auto at = embedding.begin() + static_cast<std::ptrdiff_t>(token) * c_.hidden;
      x.emplace_back(at, at + c_.hidden);
    }
    for (uint32_t layer = 0; layer < c_.layers; ++layer) run_layer(x, layer);
    Rows out;
    for (const Row& row : x) {
      const Row h = norm(row, read("model.norm.weight"));
      out.push_back(linear(h, c_.tied_embeddings ? "model.embed_tokens" : "lm_head"));
    }
    return out;
  }

 private:
  Row read(const std::string& name) const {
    const std::vector<float> values = checkpoint_.read_f32(name);
    return {values.begin(), values.end()};
  }

  Row norm(const Row& x, const Row& gain) const {
    double sum = 0;
    for (const double v : x) sum += v * v;
    const double r = 1 / std::sqrt(sum / static_cast<double>(x.size()) + c_.rms_eps);
    Row out(x.size());
    for (size_t i = 0; i < x.size(); ++i) out[i] = x[i] * r * gain[i];
    return out;
  }

  Row linear(const Row& x, const std::string& name) const {
    const Row weights = read(name + ".weight");
    Row out(weights.size() / x.size());
    for (size_t o = 0; o < out.size(); ++o) {
      for (size_t i = 0; i < x.size(); ++i) out[o] += weights[o * x.size() + i] * x[i];
    }
    if (checkpoint_.find(name + ".bias") != nullptr) {
      const Row bias = read(name + ".bias");
      for (size_t o = 0; o < out.size(); ++o) out[o] += bias[o];
    }
    return out;
  }

  Row head(const Row& row, size_t h, size_t position, const std::string& gain) const {
    const auto at = row.begin() + static_cast<std::ptrdiff_t>(h * c_.head_dim);
    Row x(at, at + c_.head_dim);
    if (c_.qk_norm) x = norm(x, read(gain));
    const std::vector<double> frequencies = formats::rope_frequencies(c_.rope, c_.head_dim);
    const size_t half = frequencies.size();
    for (size_t i = 0; i < half; ++i) {
      const double angle = static_cast<double>(position) * frequencies[i];
      const double a = x[i];
      const double b = x[i + half];
      x[i] = a * std::cos(angle) - b * std::sin(angle);
      x[i + half] = b * std::cos(angle) + a * std::sin(angle);
    }
    return x;
  }

  void run_layer(Rows& x, uint32_t layer) const {
    const std::string prefix = "model.layers." + std::to_string(layer) + ".";
    const std::string self = prefix + "self_attn.";
    const size_t dim = c_.head_dim;
    Rows q, k, v;
    for (const Row& row : x) {
      const Row h = norm(row, read(prefix + "input_layernorm.weight"));
      q.push_back(linear(h, self + "q_proj"));
      k.push_back(linear(h, self + "k_proj"));
      v.push_back(linear(h, self + "v_proj"));
    }
    for (size_t p = 0; p < x.size(); ++p) {
      Row attended(c_.heads * dim);
      for (size_t h = 0; h < c_.heads; ++h) {
        const size_t kv = h / (c_.heads / c_.kv_heads);
        const Row query = head(q[p], h, p, self + "q_norm.weight");
        Row weights;
        double sum = 0;
        for (size_t t = 0; t <= p; ++t) {
          const Row key = head(k[t], kv, t, self + "k_norm.weight");
          double score = 0;
          for (size_t i = 0; i < dim; ++i) score += query[i] * key[i];
          weights.push_back(std::exp(score / std::sqrt(static_cast<double>(dim))));
          sum += weights.back();
        }
        for (size_t t = 0; t <= p; ++t) {
          for (size_t i = 0; i < dim; ++i) {
            attended[h * dim + i] += weights[t] / sum * v[t][kv * dim + i];
          }
        }
      }
      add(x[p], linear(attended, self + "o_proj"));
      const Row h = norm(x[p], read(prefix + "post_attention_layernorm.weight"));
      Row y = linear(h, prefix + "mlp.gate_proj");
      const Row up = linear(h, prefix + "mlp.up_proj");
      for (size_t i = 0; i < y.size(); ++i) y[i] = y[i] / (1 + std::exp(-y[i])) * up[i];
      add(x[p], linear(y, prefix + "mlp.down_proj"));
    }
  }

  static void add(Row& x, const Row& y) {
    for (size_t i = 0; i < x.size(); ++i) x[i] += y[i];
  }

  const formats::Checkpoint& checkpoint_;
  const formats::ModelConfig& c_;
};

Matrix logits_of(const FloatModel& model, const TokenBatch& batch) {
  Matrix all(batch.tokens(), model.config().vocab);
  const Matrix inputs = model.head_inputs(batch);
  model.for_logits(inputs, [&](uint32_t first, ConstView part) {
    for (size_t r = 0; r < part.rows; ++r) {
      std::ranges::copy(part.row(r), all.row(r).subspan(first).begin());
    }
  });
  return all;
}

bool same_bits(const Matrix& a, const Matrix& b) {
  return a.rows() == b.rows() && a.cols() == b.cols() &&
         std::memcmp(a.elements().data(), b.elements().data(), a.elements().size_bytes()) == 0;
}

FloatOptions rounded_options() {
  FloatOptions options;
  options.activations = {{{8}, {4}, {4}, {8}}};
  options.lm_head = {8};
  options.int8_attention = true;
  options.probability_bits = 16;
  options.rotate_down = true;
  return options;
}

TEST(FloatModel, IsTheModelOfThePageInEveryArchitecture) {
  Workers workers(2);
  formats::ModelConfig plain = float_config();
  formats::ModelConfig qwen = float_config();
  qwen.qk_norm = qwen.attention_bias = qwen.tied_embeddings = true;
  formats::ModelConfig llama3 = float_config();
  llama3.rope.scaling = formats::RopeConfig::Scaling::llama3;
  llama3.rope.factor = 8;
  llama3.rope.original_context_length = 16;
  llama3.head_dim = 16;  // attention wider than hidden
  formats::ModelConfig linear = float_config();
  linear.rope.scaling = formats::RopeConfig::Scaling::linear;
  linear.rope.factor = 4;
  linear.kv_heads = 6;
  for (const formats::ModelConfig& config : {plain, qwen, llama3, linear}) {
    for (const bool rotate : {false, true}) {
      const MemoryCheckpoint checkpoint(config);
      FloatOptions options;
      options.rotate_down = rotate;
      const FloatModel model(checkpoint, options, workers);
      const std::vector<uint32_t> first = random_tokens(23, config.vocab, 1);
      const std::vector<uint32_t> second = random_tokens(9, config.vocab, 2);
      const Matrix all =
          logits_of(model, model.run(std::vector<std::span<const uint32_t>>{first, second}));
      Rows expected = PlainModel(checkpoint).logits(first);
      for (Row& row : PlainModel(checkpoint).logits(second)) expected.push_back(std::move(row));
      for (size_t r = 0; r < all.rows(); ++r) {
        for (size_t c = 0; c < all.cols(); ++c) {
          ASSERT_NEAR(all(r, c), expected[r][c], 2e-5) << "row " << r << " rotated " << rotate;
        }
      }
    }
  }
}

TEST(FloatModel, HasTheSameBitsOnAnyNumberOfThreads) {
  const MemoryCheckpoint checkpoint(float_config());
  const std::vector<uint32_t> tokens = random_tokens(300, 61, 3);
  for (const FloatOptions& options : {FloatOptions(), rounded_options()}) {
    Matrix expected;
    for (const size_t threads : {1, 2, 3}) {
      Workers workers(threads);
      const FloatModel model(checkpoint, options, workers);
      const Matrix all =
          logits_of(model, model.run(std::vector<std::span<const uint32_t>>{tokens}));
      if (threads == 1) expected = all;
      EXPECT_TRUE(same_bits(all, expected)) << threads;
    }
  }
}

class Recorder : public LayerHook {
 public:
  void inputs(Stage stage, ConstView rows) override {
    Matrix& all = seen[static_cast<size_t>(stage)];
    std::vector<float> values(all.elements().begin(), all.elements().end());
    for (size_t r = 0; r < rows.rows; ++r) {
      values.insert(values.end(), rows.row(r).begin(), rows.row(r).end());
    }
    all = Matrix(all.rows() + rows.rows, rows.cols, std::move(values));
    order += std::to_string(static_cast<int>(stage));
  }
  void revise(Stage stage, LayerWeights& weights) override {
    order += 'r';
    if (zero && stage == Stage::qkv) std::ranges::fill(weights.v.elements(), 0.0f);
  }
  Matrix seen[4];
  std::string order;
  bool zero = false;
};

// Long enough for two blocks of rows, so that a hook sees every stage in parts.
TEST(FloatModel, HooksSeeEveryStageAndChangeNothingByLooking) {
  Workers workers(2);
  const MemoryCheckpoint checkpoint(float_config());
  for (const size_t length : {40u, 1500u}) {
    const std::vector<uint32_t> a = random_tokens(length, 61, 4);
    const std::vector<uint32_t> b = random_tokens(length, 61, 5);
    const FloatModel model(checkpoint, rounded_options(), workers);
    TokenBatch watched = model.embed(std::vector<std::span<const uint32_t>>{a, b});
    TokenBatch plain = watched;
    LayerWeights weights = model.load_layer(0);
    Recorder recorder;
    model.run_layer(watched, 0, weights, &recorder);
    model.run_layer(plain, 0, weights);
    EXPECT_TRUE(same_bits(watched.residual, plain.residual)) << length;
    EXPECT_EQ(recorder.order, length == 40 ? "0r1r2r3r" : "00r11r22r33r");
    const size_t widths[] = {48, 48, 48, 80};
    for (size_t stage = 0; stage < 4; ++stage) {
      EXPECT_EQ(recorder.seen[stage].rows(), 2 * length);
      EXPECT_EQ(recorder.seen[stage].cols(), widths[stage]);
    }
    // What was seen is what was multiplied: the residual is the sum of the two products.
    Matrix sum = model.embed(std::vector<std::span<const uint32_t>>{a, b}).residual;
    multiply_transposed(sum, recorder.seen[1], weights.o, workers, {1, 1});
    multiply_transposed(sum, recorder.seen[3], weights.down, workers, {1, 1});
    for (size_t i = 0; i < sum.elements().size(); ++i) {
      ASSERT_NEAR(sum.elements()[i], watched.residual.elements()[i], 1e-4);
    }
  }
}

TEST(FloatModel, LaterStagesSeeWhatAHookReplaced) {
  Workers workers(2);
  const MemoryCheckpoint checkpoint(float_config());
  const FloatModel model(checkpoint, {}, workers);
  const std::vector<uint32_t> a = random_tokens(1500, 61, 6);
  TokenBatch batch = model.embed(std::vector<std::span<const uint32_t>>{a, a});
  LayerWeights weights = model.load_layer(0);
  Recorder recorder;
  recorder.zero = true;
  model.run_layer(batch, 0, weights, &recorder);
  for (const float value : recorder.seen[1].elements()) ASSERT_EQ(value, 0.0f);
  EXPECT_EQ(weights.v(0, 0), 0.0f);
}

TEST(FloatModel, RoundsActivationsToTheirLevels) {
  Workers workers(1);
  const MemoryCheckpoint checkpoint(float_config());
  const FloatModel model(checkpoint, rounded_options(), workers);
  const std::vector<uint32_t> a = random_tokens(20, 61, 7);
  TokenBatch batch = model.embed(std::vector<std::span<const uint32_t>>{a});
  LayerWeights weights = model.load_layer(0);
  Recorder recorder;
  model.run_layer(batch, 0, weights, &recorder);
  const auto distinct = [&](size_t stage, size_t row) {
    const auto values = recorder.seen[stage].row(row);
    return std::set<float>(values.begin(), values.end()).size();
  };
  for (size_t row = 0; row < a.size(); ++row) {
    EXPECT_GT(distinct(0, row), 16u);
    EXPECT_LE(distinct(1, row), 16u);
    EXPECT_LE(distinct(2, row), 16u);
    EXPECT_GT(distinct(3, row), 16u);
  }
}

TEST(FloatModel, RefusesWhatItCannotRun) {
  Workers workers(2);
  const std::vector<uint32_t> outside = {1, 61};
  const std::vector<uint32_t> none;
  MemoryCheckpoint checkpoint(float_config());
  const FloatModel model(checkpoint, {}, workers);
  using Windows = std::vector<std::span<const uint32_t>>;
  EXPECT_THROW(model.embed(Windows{outside}), std::invalid_argument);
  EXPECT_THROW(model.embed(Windows{none}), std::invalid_argument);
  const auto refuse = [&](FloatOptions options) {
    EXPECT_THROW(FloatModel(checkpoint, options, workers), std::invalid_argument);
  };
  FloatOptions options;
  options.activations = {{{3}, {8}, {8}, {8}}};
  refuse(options);
  options.activations.resize(3);
  refuse(options);
  options = {};
  options.probability_bits = 16;
  refuse(options);
  options.int8_attention = true;
  options.probability_bits = 7;
  refuse(options);
  checkpoint.values("model.layers.1.mlp.up_proj.weight")[70] =
      std::numeric_limits<float>::infinity();
  EXPECT_NO_THROW(model.load_layer(0));
  EXPECT_THROW(model.load_layer(1), formats::Error);
  checkpoint.remove("model.layers.0.self_attn.k_proj.weight");
  EXPECT_THROW(model.load_layer(0), formats::Error);
}

TEST(LogProbabilities, AreThoseOfTheLogits) {
  Workers workers(2);
  formats::ModelConfig config = float_config();
  config.vocab = 9000;  // logits come in two parts
  const MemoryCheckpoint checkpoint(config);
  const FloatModel model(checkpoint, {}, workers);
  std::vector<ScoredWindow> windows;
  windows.push_back({random_tokens(30, config.vocab, 8), 0});
  windows.push_back({random_tokens(1, config.vocab, 9), 0});  // predicts nothing
  windows.push_back({random_tokens(20, config.vocab, 10), 12});
  windows[0].tokens[3] = 8999;
  size_t reported = 0;
  const std::vector<double> values = target_log_probabilities(
      model, windows, [&](std::span<const double> part) { reported += part.size(); });
  ASSERT_EQ(values.size(), 29u + 7u);
  EXPECT_EQ(reported, values.size());
  size_t at = 0;
  for (const ScoredWindow& window : windows) {
    const Matrix all =
        logits_of(model, model.run(std::vector<std::span<const uint32_t>>{window.tokens}));
    for (size_t r = window.first_row; r + 1 < window.tokens.size(); ++r) {
      double sum = 0;
      for (const float logit : all.row(r)) sum += std::exp(double{logit});
      ASSERT_NEAR(values[at++], all(r, window.tokens[r + 1]) - std::log(sum), 1e-5);
    }
  }
}

TEST(LogProbabilities, BatchesAreBounded) {
  std::vector<ScoredWindow> windows(40, {std::vector<uint32_t>(1000), 0});
  EXPECT_EQ(next_batch(windows).size(), 16u);
  windows[0].tokens.resize(50000);
  EXPECT_EQ(next_batch(windows).size(), 1u);
  EXPECT_TRUE(next_batch({}).empty());
}

}  // namespace
}  // namespace flexllm::quantizer
