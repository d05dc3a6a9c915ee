#include "quantizer/rotation/learn.h"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <sstream>
#include <stdexcept>
#include <utility>

#include "formats/sha256.h"
#include "quantizer/algebra/products.h"
#include "quantizer/float_model/float_model.h"
#include "quantizer/rotation/cayley.h"
#include "quantizer/rotation/descent_state.h"
#include "quantizer/rotation/rotated_checkpoint.h"

namespace flexllm::quantizer {
namespace {

// Steps of R1 after which it is kept.
constexpr uint32_t kResidualInterval = 10;

// Rows of `matrix` at even distances, at most `count`.
Matrix some_rows(ConstView matrix, size_t count) {
  const size_t taken = std::min(count, matrix.rows);
  Matrix rows(taken, matrix.cols);
  for (size_t i = 0; i < taken; ++i) {
    const auto from = matrix.row(i * matrix.rows / taken);
    std::copy(from.begin(), from.end(), rows.row(i).begin());
  }
  return rows;
}

double energy(ConstView matrix) {
  double sum = 0;
  for (size_t r = 0; r < matrix.rows; ++r) {
    for (const float value : matrix.row(r)) sum += double{value} * value;
  }
  return sum;
}

// Appends the samples of the matrices that read `inputs` together.
void add_samples(std::vector<StepSamples>& samples, const Matrix& inputs,
                 std::span<const Matrix* const> matrices, const MatrixPrecision& precision,
                 size_t weight_rows, Workers& workers) {
  double output_energy = 0;
  double weight_energy = 0;
  size_t outputs = 0;
  for (const Matrix* matrix : matrices) {
    Matrix product(inputs.rows(), matrix->rows());
    multiply_transposed(product, inputs, *matrix, workers);
    output_energy += energy(product);
    weight_energy += energy(*matrix);
    outputs += matrix->rows();
  }
  const auto n_rows = static_cast<double>(inputs.rows());
  output_energy /= n_rows;
  const double input_energy = energy(inputs) / n_rows;
  if (!(output_energy > 0)) return;
  const kernels::ActivationGrid grid = precision.encoded(false).grid();
  const double levels = grid.levels / double{grid.fraction()};  // in the whole range
  samples.push_back({inputs, inputs.cols(), false,
                     weight_energy / (12 * levels * levels * output_energy * n_rows)});
  const double largest = precision.weight_bits == 4 ? 7 : 127;
  const size_t group = precision.grouped ? kernels::kGroupInputs : inputs.cols();
  const double share = static_cast<double>(group) / static_cast<double>(inputs.cols());
  for (const Matrix* matrix : matrices) {
    Matrix rows = some_rows(*matrix, weight_rows * matrix->rows() / outputs + 1);
    const double stands_for =
        static_cast<double>(matrix->rows()) / static_cast<double>(rows.rows());
    samples.push_back(
        {std::move(rows), group, true,
         stands_for * input_energy * share / (12 * largest * largest * output_energy)});
  }
}

// Keeps some of the rows that a stage reads.
class InputSampler final : public LayerHook {
 public:
  InputSampler(size_t tokens, size_t rows) : tokens_(tokens), rows_(std::min(rows, tokens)) {}

  void inputs(Stage stage, ConstView block) override {
    if (stage == Stage::down) return;
    Sample& sample = samples_[static_cast<size_t>(stage)];
    if (sample.rows.rows() == 0) sample.rows = Matrix(rows_, block.cols);
    for (; sample.taken < rows_; ++sample.taken) {
      const size_t wanted = sample.taken * tokens_ / rows_;
      if (wanted >= sample.seen + block.rows) break;
      const auto from = block.row(wanted - sample.seen);
      std::copy(from.begin(), from.end(), sample.rows.row(sample.taken).begin());
    }
    sample.seen += block.rows;
  }

  const Matrix& of(Stage stage) const { return samples_[static_cast<size_t>(stage)].rows; }

 private:
  struct Sample {
    Matrix rows;
    size_t taken = 0;
    size_t seen = 0;
  };

  size_t tokens_;
  size_t rows_;
  Sample samples_[3];
};

struct AllSamples {
  std::vector<StepSamples> residual;
  std::vector<std::vector<StepSamples>> values;  // of each layer
};

class Learner {
 public:
  Learner(const Scheme& scheme, const LearnOptions& options, Workers& workers)
      : scheme_(scheme), options_(options), workers_(workers) {}

  AllSamples collect(const formats::Checkpoint& checkpoint,
                     std::span<const std::vector<uint32_t>> windows) const {
    const FloatModel model(checkpoint, {}, workers_);
    const std::vector<std::span<const uint32_t>> spans(windows.begin(), windows.end());
    TokenBatch batch = model.embed(spans);
    AllSamples samples;
    for (uint32_t layer = 0; layer < model.config().layers; ++layer) {
      LayerWeights w = model.load_layer(layer);
      InputSampler sampler(batch.tokens(), options_.rows);
      model.run_layer(batch, layer, w, &sampler);
      if (scheme_.rotate_residual) {
        const Matrix* qkv[] = {&w.q, &w.k, &w.v};
        const Matrix* gate_up[] = {&w.gate, &w.up};
        add(samples.residual, sampler.of(Stage::qkv), qkv, {layer, MatrixKind::qkv});
        add(samples.residual, sampler.of(Stage::gate_up), gate_up, {layer, MatrixKind::gate_up});
      }
      if (scheme_.rotate_values) {
        const Matrix* o[] = {&w.o};
        add(samples.values.emplace_back(), sampler.of(Stage::o), o, {layer, MatrixKind::o});
      }
      report(0.3 * (layer + 1) / model.config().layers);
    }
    return samples;
  }

  // `start` turned further. The samples are turned by `start` already. `name` is that of its file
  // in the partial folder, written every `interval` steps and at the end.
  Rotation learn(const Rotation& start, std::span<const StepSamples> samples,
                 LearnedRotations& learned, const std::string& name, uint32_t interval,
                 double share_before, double share_after) const {
    const size_t n = start.size();
    const std::filesystem::path file =
        options_.partial != nullptr ? options_.partial->file(name + ".safetensors") : "";
    DescentState state = begin(file, n);
    CayleyDescent descent(std::move(state.point), std::move(state.velocity), options_.momentum);
    while (state.steps <= options_.steps) {
      const uint32_t step = state.steps++;
      Matrix gradient(n, n);
      const double loss = step_loss(samples, descent.point(), gradient, workers_);
      if (step == 0) state.loss_first = loss;
      if (step == 0 || loss < state.loss_least) {
        state.loss_least = loss;
        state.best = descent.point();
      }
      const double left = 1 - static_cast<double>(step) / std::max(1u, options_.steps);
      if (step < options_.steps) descent.step(gradient, options_.angle * left, workers_);
      if (!file.empty() && (step == options_.steps || state.steps % interval == 0)) {
        state.point = descent.point();
        state.velocity = descent.velocity();
        save_state(state, file);
      }
      report(share_before + (share_after - share_before) * (1 - left));
    }
    learned.loss_before.push_back(state.loss_first);
    learned.loss_after.push_back(state.loss_least);
    Matrix product(n, n);
    multiply(product, start.matrix(), state.best, workers_);
    return Rotation::dense(made_orthogonal(product, workers_), workers_);
  }

  void report(double share) const {
    if (options_.progress) options_.progress(share);
  }

 private:
  static DescentState begin(const std::filesystem::path& file, size_t n) {
    if (!file.empty()) {
      if (auto kept = load_state(file, n)) return std::move(*kept);
    }
    DescentState state;
    state.point = Matrix(n, n);
    for (size_t i = 0; i < n; ++i) state.point(i, i) = 1;
    state.velocity = Matrix(n, n);
    return state;
  }

  void add(std::vector<StepSamples>& samples, const Matrix& inputs,
           std::span<const Matrix* const> matrices, const MatrixId& id) const {
    add_samples(samples, inputs, matrices, scheme_.of(id), options_.weight_rows, workers_);
  }

  const Scheme& scheme_;
  const LearnOptions& options_;
  Workers& workers_;
};

}  // namespace

double step_loss(std::span<const StepSamples> samples, const Matrix& rotation, Matrix& gradient,
                 Workers& workers) {
  const size_t n = rotation.rows();
  double loss = 0;
  for (const StepSamples& sample : samples) {
    const size_t width = sample.rows.cols();
    const size_t pieces = sample.rows.rows() * width / n;
    const ConstView x{sample.rows.elements().data(), pieces, n, n};
    Matrix turned(pieces, n);
    multiply(turned, x, rotation, workers);
    Matrix slopes(pieces, n);
    for (size_t r = 0; r < sample.rows.rows(); ++r) {
      const std::span<const float> row = turned.elements().subspan(r * width, width);
      const std::span<float> slope = slopes.elements().subspan(r * width, width);
      for (size_t begin = 0; begin < width; begin += sample.group) {
        const auto first = row.begin() + static_cast<std::ptrdiff_t>(begin);
        const auto last =
            row.begin() + static_cast<std::ptrdiff_t>(std::min(width, begin + sample.group));
        const auto [low, high] = std::minmax_element(first, last);
        const auto at = [&](auto element) -> float& {
          return slope[static_cast<size_t>(element - row.begin())];
        };
        if (sample.symmetric) {
          const auto largest = std::fabs(*low) > std::fabs(*high) ? low : high;
          loss += sample.weight * double{*largest} * *largest;
          at(largest) += static_cast<float>(2 * sample.weight * *largest);
        } else {
          const double range = double{*high} - *low;
          loss += sample.weight * range * range;
          at(high) += static_cast<float>(2 * sample.weight * range);
          at(low) -= static_cast<float>(2 * sample.weight * range);
        }
      }
    }
    transposed_multiply(gradient, x, slopes, workers, {1, 1});
  }
  return loss;
}

std::string learning_key(const Scheme& scheme, std::span<const std::vector<uint32_t>> windows,
                         const LearnOptions& options) {
  formats::Sha256 text;
  for (const std::vector<uint32_t>& window : windows) {
    const uint64_t size = window.size();
    text.update(std::as_bytes(std::span(&size, 1)));
    text.update(std::as_bytes(std::span(window)));
  }
  std::ostringstream key;
  key << std::hexfloat << "scheme " << scheme.name() << "\nsteps " << options.steps << " angle "
      << options.angle << " momentum " << options.momentum << "\nrows " << options.rows << " of "
      << "weights " << options.weight_rows << "\nseed " << options.seed << "\ntext "
      << formats::to_hex(text.finish()) << "\n";
  return key.str();
}

LearnedRotations learn_rotations(const formats::Checkpoint& checkpoint, const Scheme& scheme,
                                 std::span<const std::vector<uint32_t>> windows,
                                 const LearnOptions& options, Workers& workers) {
  if (!scheme.rotate_residual && !scheme.rotate_values) {
    throw std::invalid_argument("the scheme has neither R1 nor R2 to learn");
  }
  if (windows.empty()) throw std::invalid_argument("no text to learn rotations from");
  scheme.check_layers(checkpoint.config().layers);
  LearnedRotations learned;
  learned.rotations = random_rotations(checkpoint.config(), scheme.rotate_residual,
                                       scheme.rotate_values, options.seed, workers);
  const Learner learner(scheme, options, workers);
  const RotatedCheckpoint rotated(checkpoint, learned.rotations, workers.threads());
  const AllSamples samples = learner.collect(rotated, windows);
  const double residual_end = scheme.rotate_residual ? 0.9 : 0.3;
  if (scheme.rotate_residual) {
    learned.rotations.residual =
        learner.learn(learned.rotations.residual, samples.residual, learned, "residual",
                      kResidualInterval, 0.3, residual_end);
  }
  const auto layers = static_cast<double>(samples.values.size());
  for (size_t layer = 0; layer < samples.values.size(); ++layer) {
    Rotation& rotation = learned.rotations.values[layer];
    const auto index = static_cast<double>(layer);
    rotation =
        learner.learn(rotation, samples.values[layer], learned, "values." + std::to_string(layer),
                      UINT32_MAX, residual_end + (1 - residual_end) * index / layers,
                      residual_end + (1 - residual_end) * (index + 1) / layers);
  }
  return learned;
}

}  // namespace flexllm::quantizer
