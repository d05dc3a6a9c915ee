// A descent of one rotation, between two steps: kept in a file so that learning that was stopped
// goes on. A plain value.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>

#include "quantizer/algebra/matrix.h"

namespace flexllm::quantizer {

struct DescentState {
  uint32_t steps = 0;     // losses that have been computed
  double loss_first = 0;  // the first of them
  double loss_least = 0;
  Matrix point;     // [n][n], with its velocity
  Matrix velocity;  // [n][n]
  Matrix best;      // [n][n], the point of the least loss
};

// The state of a rotation of size `n` in the file, or nullopt if there is none. Throws
// formats::Error if it is damaged.
std::optional<DescentState> load_state(const std::filesystem::path& path, size_t n);
// Throws formats::Error; the file is then what it was.
void save_state(const DescentState& state, const std::filesystem::path& path);

}  // namespace flexllm::quantizer
