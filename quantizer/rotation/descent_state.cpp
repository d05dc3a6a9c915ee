#include "quantizer/rotation/descent_state.h"

#include <cstring>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "formats/error.h"
#include "formats/safetensors.h"

namespace flexllm::quantizer {
namespace {

using formats::DType;

constexpr const char* kNumbers = "steps_and_losses";
constexpr uint64_t kMetadataCapacity = 64;

template <typename State>
auto matrices(State& state) {
  return std::vector{std::pair{"point", &state.point}, std::pair{"velocity", &state.velocity},
                     std::pair{"best", &state.best}};
}

}  // namespace

std::optional<DescentState> load_state(const std::filesystem::path& path, size_t n) {
  if (!std::filesystem::exists(path)) return std::nullopt;
  const formats::SafetensorsFile file(path);
  const auto copy = [&](const std::string& name, DType type, const std::vector<uint64_t>& shape,
                        std::span<std::byte> out) {
    const auto* tensor = file.find(name);
    if (tensor == nullptr || tensor->type != type || tensor->shape != shape) {
      throw formats::Error(path, "tensors", "are not those of a descent: remove the folder");
    }
    std::memcpy(out.data(), tensor->data.data(), out.size());
  };
  DescentState state;
  for (const auto& [name, matrix] : matrices(state)) {
    *matrix = Matrix(n, n);
    copy(name, DType::f32, {n, n}, std::as_writable_bytes(matrix->elements()));
  }
  double numbers[3];
  copy(kNumbers, DType::f64, {3}, std::as_writable_bytes(std::span(numbers)));
  state.steps = static_cast<uint32_t>(numbers[0]);
  state.loss_first = numbers[1];
  state.loss_least = numbers[2];
  return state;
}

void save_state(const DescentState& state, const std::filesystem::path& path) {
  std::vector<formats::SafetensorsHead> heads;
  for (const auto& [name, matrix] : matrices(state)) {
    heads.push_back({name, DType::f32, {matrix->rows(), matrix->cols()}});
  }
  heads.push_back({kNumbers, DType::f64, {3}});
  formats::SafetensorsWriter writer(path, heads, kMetadataCapacity);
  for (const auto& [name, matrix] : matrices(state)) {
    writer.write(name, std::as_bytes(matrix->elements()));
  }
  const double numbers[] = {static_cast<double>(state.steps), state.loss_first, state.loss_least};
  writer.write(kNumbers, std::as_bytes(std::span(numbers)));
  writer.commit({});
}

}  // namespace flexllm::quantizer
