#include "quantizer/rotation/rotated_checkpoint.h"

#include <algorithm>
#include <stdexcept>
#include <utility>

namespace flexllm::quantizer {
namespace {

constexpr const char* kEmbedding = "model.embed_tokens.weight";
constexpr const char* kHead = "lm_head.weight";
constexpr const char* kFinalNorm = "model.norm.weight";

// "model.layers.12.self_attn.v_proj.weight": the layer, and what comes behind it.
struct LayerName {
  std::string prefix;  // with the dot behind the number
  std::string part;
  size_t layer = 0;
};

bool split(const std::string& name, LayerName& out) {
  const std::string stem = "model.layers.";
  if (!name.starts_with(stem)) return false;
  const size_t dot = name.find('.', stem.size());
  out.prefix = name.substr(0, dot + 1);
  out.part = name.substr(dot + 1);
  out.layer = std::stoul(name.substr(stem.size(), dot - stem.size()));
  return true;
}

uint64_t width_of(const formats::TensorInfo& info) {
  return info.shape.size() == 1 ? 1 : info.shape.back();
}

}  // namespace

RotatedCheckpoint::RotatedCheckpoint(const formats::Checkpoint& original, Rotations rotations,
                                     size_t threads)
    : original_(original),
      rotations_(std::move(rotations)),
      config_(original.config()),
      workers_(threads) {
  const Rotation& residual = rotations_.residual;
  const auto fits = [this](const Rotation& r) { return r.size() == config_.head_dim; };
  if ((!residual.empty() && residual.size() != config_.hidden) ||
      (!rotations_.values.empty() && rotations_.values.size() != config_.layers) ||
      !std::all_of(rotations_.values.begin(), rotations_.values.end(), fits)) {
    throw std::invalid_argument("the rotations are not of the model's sizes");
  }
  const bool untie = !residual.empty() && config_.tied_embeddings;
  if (untie) config_.tied_embeddings = false;
  for (const formats::TensorInfo& info : original.tensors()) plan(info);
  const formats::TensorInfo* embedding = original.find(kEmbedding);
  if (untie && embedding != nullptr) plan({kHead, embedding->shape, embedding->type});
}

void RotatedCheckpoint::plan(const formats::TensorInfo& info) {
  index_.emplace(info.name, tensors_.size());
  tensors_.push_back(info);
  changes_.push_back(change_of(info.name));
  const Change& change = changes_.back();
  if (change.ones || change.inputs != nullptr || change.outputs != nullptr) {
    tensors_.back().type = formats::DType::f32;
  }
}

RotatedCheckpoint::Change RotatedCheckpoint::change_of(const std::string& name) const {
  Change change;
  change.source = name;
  const Rotation* residual = rotations_.residual.empty() ? nullptr : &rotations_.residual;
  if (name == kHead && original_.config().tied_embeddings) change.source = kEmbedding;
  LayerName of;
  if (!split(name, of)) {
    change.ones = residual != nullptr && name == kFinalNorm;
    if (name == kEmbedding || name == kHead) change.inputs = residual;
    if (residual != nullptr && name == kHead) change.gain = kFinalNorm;
    return change;
  }
  const Rotation* values =
      of.layer < rotations_.values.size() ? &rotations_.values[of.layer] : nullptr;
  const auto behind = [&](const char* norm) {
    change.inputs = residual;
    if (residual != nullptr) change.gain = of.prefix + norm;
  };
  if (of.part == "input_layernorm.weight" || of.part == "post_attention_layernorm.weight") {
    change.ones = residual != nullptr;
  } else if (of.part == "self_attn.q_proj.weight" || of.part == "self_attn.k_proj.weight") {
    behind("input_layernorm.weight");
  } else if (of.part == "self_attn.v_proj.weight") {
    behind("input_layernorm.weight");
    change.outputs = values;
  } else if (of.part == "self_attn.v_proj.bias") {
    change.outputs = values;
  } else if (of.part == "self_attn.o_proj.weight") {
    change.inputs = values;
    change.outputs = residual;
  } else if (of.part == "mlp.gate_proj.weight" || of.part == "mlp.up_proj.weight") {
    behind("post_attention_layernorm.weight");
  } else if (of.part == "mlp.down_proj.weight") {
    change.outputs = residual;
  }
  return change;
}

const formats::TensorInfo* RotatedCheckpoint::find(std::string_view name) const {
  const auto found = index_.find(std::string(name));
  return found == index_.end() ? nullptr : &tensors_[found->second];
}

void RotatedCheckpoint::read_rows_f32(std::string_view name, uint64_t first_row, uint64_t n_rows,
                                      std::span<float> out) const {
  const auto found = index_.find(std::string(name));
  if (found == index_.end()) {
    throw formats::Error("the rotated checkpoint has no tensor '" + std::string(name) + "'");
  }
  const formats::TensorInfo& info = tensors_[found->second];
  const Change& change = changes_[found->second];
  const uint64_t width = width_of(info);
  if (first_row > info.shape.front() || n_rows > info.shape.front() - first_row ||
      out.size() != n_rows * width) {
    throw formats::Error("tensor '" + info.name + "': rows " + std::to_string(first_row) + " to " +
                         std::to_string(first_row + n_rows) + " do not fit or do not fill " +
                         std::to_string(out.size()) + " floats");
  }
  if (n_rows == 0) return;
  if (change.ones) {
    std::fill(out.begin(), out.end(), 1.0f);
  } else if (change.outputs != nullptr) {
    turn_outputs(change, first_row, width, out);
  } else {
    read_turned_inputs(change, first_row, {out.data(), n_rows, width, width});
  }
}

void RotatedCheckpoint::read_turned_inputs(const Change& change, uint64_t first_row,
                                           View rows) const {
  original_.read_rows_f32(change.source, first_row, rows.rows, {rows.data, rows.rows * rows.cols});
  if (!change.gain.empty()) {
    const std::vector<float> gain = original_.read_f32(change.gain);
    for (size_t r = 0; r < rows.rows; ++r) {
      for (size_t c = 0; c < rows.cols; ++c) rows(r, c) *= gain[c];
    }
  }
  if (change.inputs != nullptr) {
    const std::lock_guard lock(mutex_);
    change.inputs->apply(rows, workers_);
  }
}

// Whole pieces of outputs, turned column by column: a column of R^T w is a row of w^T R.
void RotatedCheckpoint::turn_outputs(const Change& change, uint64_t first_row, uint64_t width,
                                     std::span<float> out) const {
  const uint64_t size = change.outputs->size();
  const uint64_t begin = first_row / size * size;
  const uint64_t end = (first_row + out.size() / width + size - 1) / size * size;
  Matrix rows(end - begin, width);
  read_turned_inputs(change, begin, rows);
  constexpr size_t kColumns = 256;
  const std::lock_guard lock(mutex_);
  for (size_t first = 0; first < width; first += kColumns) {
    const size_t columns = std::min(kColumns, width - first);
    Matrix turned(columns, rows.rows());
    for (size_t r = 0; r < rows.rows(); ++r) {
      for (size_t c = 0; c < columns; ++c) turned(c, r) = rows(r, first + c);
    }
    change.outputs->apply(turned, workers_);
    for (size_t r = 0; r < rows.rows(); ++r) {
      for (size_t c = 0; c < columns; ++c) rows(r, first + c) = turned(c, r);
    }
  }
  const auto from = rows.elements().subspan((first_row - begin) * width, out.size());
  std::copy(from.begin(), from.end(), out.begin());
}

}  // namespace flexllm::quantizer
